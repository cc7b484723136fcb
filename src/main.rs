//! The `litflow` program: see [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup(); // as FAILPOINTS says
    cli::main()
}
