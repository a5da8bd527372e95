//! An OpenSSH server of the test's own: on the loopback, on a free port, gone when dropped.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use lathe_runners::{SshIdentity, SshSettings, SshTransport};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, getuid},
};
use tempfile::TempDir;

const PROGRAM: &str = "/usr/sbin/sshd";

pub struct Sshd {
    folder: TempDir,
    pub port: u16,
    server: Child,
}

impl Sshd {
    /// A server with an ed25519 and an RSA host key, or nothing (with a printed reason) where OpenSSH's
    /// server is not installed. In CI it must be.
    pub fn start() -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is missing: install openssh-server");
            eprintln!("skipped: {PROGRAM} is missing (Debian package openssh-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        keygen(&folder.path().join("host_ed25519"), "ed25519");
        keygen(&folder.path().join("host_rsa"), "rsa");
        keygen(&folder.path().join("id_ed25519"), "ed25519");
        keygen(&folder.path().join("id_rsa"), "rsa");
        let mut keys = fs::read(folder.path().join("id_ed25519.pub")).unwrap();
        keys.extend(fs::read(folder.path().join("id_rsa.pub")).unwrap());
        fs::write(folder.path().join("authorized_keys"), keys).unwrap();
        if getuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = serve(folder.path(), port, "host_ed25519 host_rsa");
        let sshd = Self { folder, port, server };
        sshd.write_known_hosts(&["host_ed25519", "host_rsa"]);
        Some(sshd)
    }

    /// Stops the server and starts it again with these host keys.
    pub fn restart_with(&mut self, host_keys: &str) {
        self.stop();
        self.server = serve(self.folder.path(), self.port, host_keys);
    }

    /// Makes another host key of this name.
    pub fn new_host_key(&self, name: &str, kind: &str) {
        keygen(&self.path(name), kind);
    }

    /// Writes these host keys into the file of known hosts, as `ssh-keyscan` would.
    pub fn write_known_hosts(&self, keys: &[&str]) {
        let lines: String = keys
            .iter()
            .map(|key| {
                let public = fs::read_to_string(self.path(&format!("{key}.pub"))).unwrap();
                let words: Vec<&str> = public.split_whitespace().take(2).collect();
                format!("[127.0.0.1]:{} {}\n", self.port, words.join(" "))
            })
            .collect();
        fs::write(self.path("known_hosts"), lines).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn settings(&self) -> SshSettings {
        SshSettings {
            user: user(),
            host: "127.0.0.1".into(),
            port: self.port,
            identity: SshIdentity::File(self.path("id_ed25519")),
            known_hosts: self.path("known_hosts"),
        }
    }

    pub fn transport(&self) -> SshTransport {
        SshTransport::new(self.settings())
    }

    /// Sends a signal to the processes that serve the connections, not to the listener.
    pub fn signal_connections(&self, signal: Signal) -> usize {
        let mut pids = descendants_named_sshd(self.server.id());
        pids.retain(|&pid| kill(Pid::from_raw(pid), signal).is_ok());
        pids.len()
    }

    /// Cuts every connection and lets nobody in any more, without a moment between the two.
    pub fn vanish(&mut self) {
        self.signal_listener(Signal::SIGSTOP);
        assert!(self.signal_connections(Signal::SIGKILL) > 0);
        self.stop();
    }

    /// Stops the listener, so that nothing connects any more.
    pub fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Stops or wakes the listener.
    pub fn signal_listener(&self, signal: Signal) {
        kill(Pid::from_raw(self.server.id() as i32), signal).unwrap();
    }

    /// Starts it again as it was.
    pub fn start_again(&mut self) {
        self.restart_with("host_ed25519 host_rsa");
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.signal_connections(Signal::SIGKILL);
        self.stop();
    }
}

pub fn user() -> String {
    User::from_uid(getuid()).unwrap().unwrap().name
}

fn keygen(path: &Path, kind: &str) {
    let _ = fs::remove_file(path);
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

fn serve(folder: &Path, port: u16, host_keys: &str) -> Child {
    let mut config = fs::File::create(folder.join("sshd_config")).unwrap();
    for key in host_keys.split_whitespace() {
        writeln!(config, "HostKey {}", folder.join(key).display()).unwrap();
    }
    write!(
        config,
        "Port {port}\nListenAddress 127.0.0.1\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nMaxStartups 100\n",
        folder.join("authorized_keys").display()
    )
    .unwrap();
    drop(config);
    let mut server = Command::new(PROGRAM)
        .arg("-D")
        .arg("-f")
        .arg(folder.join("sshd_config"))
        .arg("-E")
        .arg(folder.join("log"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(server.try_wait().unwrap().is_none() && Instant::now() < until, "sshd did not start: {log}");
        thread::sleep(Duration::from_millis(50));
    }
    server
}

/// The server's own processes below the listener, by `/proc`; what they launched is not among them.
fn descendants_named_sshd(listener: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut parents = vec![listener as i32];
    while let Some(parent) = parents.pop() {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((name, rest)) = stat.rsplit_once(')') else { continue };
            let of_parent = rest.split_whitespace().nth(1).and_then(|word| word.parse().ok()) == Some(parent);
            if of_parent && name.ends_with("(sshd") {
                found.push(pid);
                parents.push(pid);
            }
        }
    }
    found
}
