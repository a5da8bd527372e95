//! The device agent with its engine inside, for devices without a library: see `lathe_runners`.

fn main() -> std::process::ExitCode {
    lathe_runners::agent_main()
}
