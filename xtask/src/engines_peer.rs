//! Execution providers of ONNX Runtime that the usual library lacks, for the tests that need one.

use crate::{
    command::{self, Failure},
    environment::{Environment, build_agent},
    pins::{ONNXRUNTIME_NEWER, ONNXRUNTIME_OPENVINO, ONNXRUNTIME_QNN},
    setup,
};

/// Fetches the libraries once, and runs the tests with them.
pub fn run(environment: Environment) -> Result<(), Failure> {
    let home = environment.root.join("target/lathe");
    let environment = environment
        .with_openvino()?
        .with_peer("LATHE_ORT_OPENVINO", || {
            setup::libraries(&home, "onnxruntime-openvino", ONNXRUNTIME_OPENVINO)
        })?
        .with_peer("LATHE_ORT_NEWER", || setup::libraries(&home, "onnxruntime-newer", ONNXRUNTIME_NEWER))?
        .with_peer("LATHE_QNN", || {
            let folder = setup::libraries(&home, "onnxruntime-qnn", ONNXRUNTIME_QNN)?;
            Ok(folder.join("libonnxruntime_providers_qnn.so"))
        })?;
    build_agent(&environment.root)?;
    let tests = ["test", "--package", "lathe-runners", "--test", "engines"];
    command::run(&mut environment.cargo(&tests))
}
