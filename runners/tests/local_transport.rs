//! The transport that stays on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod peers;

use lathe_runners::LocalTransport;
use peers::contract;

#[test]
fn this_machine_keeps_the_contract_of_a_transport() {
    let folder = tempfile::tempdir().unwrap();
    contract::holds(&mut LocalTransport, folder.path().to_str().unwrap());
}
