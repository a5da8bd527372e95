//! The device agent: see `lathe_runners`.

fn main() -> std::process::ExitCode {
    lathe_runners::agent_main()
}
