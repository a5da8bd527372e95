//! For which processor a program or library was built.

/// Architecture in an ELF file's header, by the kernel's name; nothing if it is no ELF file or one for a
/// machine that no device of Lathe is.
pub(crate) fn of_file(content: &[u8]) -> Option<&'static str> {
    let header = content.get(..20)?;
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let bytes = [header[18], header[19]];
    let machine = if header[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    Some(match machine {
        3 => "i686",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => return None,
    })
}

/// The kernel's name of a machine in the form of [`of_file`].
pub(crate) fn of_machine(name: &str) -> &str {
    match name {
        "arm64" => "aarch64",
        "amd64" => "x86_64",
        "i386" | "i486" | "i586" => "i686",
        other if other.starts_with("armv") && !other.starts_with("armv8") => "arm",
        "armv8l" => "arm",
        other => other,
    }
}

/// The architecture that a launch prefix emulates (`qemu-aarch64-static -L …`), if it does.
pub(crate) fn of_emulator(words: &[String]) -> Option<&str> {
    words.iter().find_map(|word| {
        let name = word.rsplit('/').next().unwrap_or(word).strip_prefix("qemu-")?;
        let name = name.strip_suffix("-static").unwrap_or(name);
        (!name.is_empty() && !name.starts_with("system")).then(|| of_machine(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_machines_and_emulators_speak_the_same_names() {
        let mut header = [0_u8; 20];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 183;
        assert_eq!(of_file(&header), Some("aarch64"));
        header[18] = 62;
        assert_eq!(of_file(&header), Some("x86_64"));
        assert_eq!(of_file(b"#!/bin/sh\nexec something\n"), None);
        assert_eq!(of_file(b"\x7fELF"), None);
        assert_eq!(
            (of_machine("armv7l"), of_machine("arm64"), of_machine("x86_64")),
            ("arm", "aarch64", "x86_64")
        );
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of_emulator(&words("nice -n 5 /usr/bin/qemu-aarch64-static -L /p")), Some("aarch64"));
        assert_eq!(of_emulator(&words("qemu-arm")), Some("arm"));
        assert_eq!(of_emulator(&words("taskset -c 3")), None);
    }
}
