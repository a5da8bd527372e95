//! What a stranger reads first.

use crate::fixture::Fixture;

#[test]
fn help_of_every_command_is_as_reviewed() {
    let fixture = Fixture::new("");
    let mut text = String::new();
    for words in [
        vec!["--help"],
        vec!["run", "--help"],
        vec!["measure", "--help"],
        vec!["report", "--help"],
        vec!["space", "--help"],
        vec!["space", "count", "--help"],
        vec!["device", "--help"],
        vec!["device", "add", "--help"],
        vec!["device", "noise", "--help"],
        vec!["db", "--help"],
        vec!["db", "export", "--help"],
        vec!["table", "--help"],
        vec!["table", "show", "--help"],
        vec!["table", "import", "--help"],
        vec!["table", "export", "--help"],
        vec!["bench", "--help"],
        vec!["bench", "predictor", "--help"],
        vec!["bench", "proxies", "--help"],
        vec!["bench", "search", "--help"],
        vec!["bench", "selection", "--help"],
    ] {
        let output = fixture.command(&words).env("COLUMNS", "80").output().unwrap();
        assert!(output.status.success());
        text.extend(["$ lathe ", &words.join(" "), "\n", &String::from_utf8(output.stdout).unwrap(), "\n"]);
    }
    insta::assert_snapshot!(text);
}
