//! What is fetched: exact versions, exact files, exact hashes.

/// One wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Project and version as pip takes them.
    pub requirement: &'static str,
    /// Name of the file.
    pub file: &'static str,
    /// SHA-256 of the file.
    pub sha256: &'static str,
}

/// libtorch and the two CUDA stubs that its CPU half links against.
pub const TORCH: [Pin; 3] = [
    Pin {
        requirement: "torch==2.11.0",
        file: "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    },
    Pin {
        requirement: "nvidia-cuda-runtime==13.0.96",
        file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    },
    Pin {
        requirement: "nvidia-cuda-cupti==13.0.85",
        file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    },
];

/// The inference engine of the device agent.
pub const ONNXRUNTIME: Pin = Pin {
    requirement: "onnxruntime==1.24.1",
    file: "onnxruntime-1.24.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    sha256: "1cabe71ca14dcfbf812d312aab0a704507ac909c137ee6e89e4908755d0fc60e",
};

/// The same for 64-bit ARM.
pub const ONNXRUNTIME_AARCH64: Pin = Pin {
    requirement: "onnxruntime==1.24.1",
    file: "onnxruntime-1.24.1-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
    sha256: "86bc43e922b1f581b3de26a3dc402149c70e5542fceb5bec6b3a85542dbeb164",
};

/// The second engine, for its tests.
pub const OPENVINO: Pin = Pin {
    requirement: "openvino==2026.4.1",
    file: "openvino-2026.4.1-22982-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256: "2d22b1da03f7caf74df30e9f6417d0ab2f637e4a38e08e1dcd294d2c37407aaf",
};

/// ONNX Runtime with a second execution provider built in, for `cargo xtask engines-peer`.
pub const ONNXRUNTIME_OPENVINO: Pin = Pin {
    requirement: "onnxruntime-openvino==1.24.1",
    file: "onnxruntime_openvino-1.24.1-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256: "3007c803634cc69c6d52af1dea7ce729d9bb62b9a11070fd2f959119199007a8",
};

/// The ONNX Runtime that the plugin below is built for.
pub const ONNXRUNTIME_NEWER: Pin = Pin {
    requirement: "onnxruntime==1.32.0",
    file: "onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
};

/// Hexagon's compiler and emulator as a plugin. Qualcomm's licence: not to be passed on.
pub const ONNXRUNTIME_QNN: Pin = Pin {
    requirement: "onnxruntime-qnn==2.7.0",
    file: "onnxruntime_qnn-2.7.0-cp311-cp311-manylinux_2_35_x86_64.whl",
    sha256: "c56c01562b8534fe8980cfea4601408d950c065f8251fb862ce82101c52c9849",
};

/// Name of the engine's library in its wheel.
pub const ONNXRUNTIME_LIBRARY: &str = "libonnxruntime.so.1.24.1";

/// Arm's compiler for Ethos-U NPUs, and what it needs.
pub const VELA: [Pin; 3] = [
    Pin {
        requirement: "ethos-u-vela==5.2.0",
        file: "ethos_u_vela-5.2.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256: "a12db89e014ad0d19f1a5156ec1ba45e0d0f30d3428f4ca8abea88e3d64a0ad2",
    },
    FLATBUFFERS,
    NUMPY,
];

/// The interpreter that TFLite files are checked with, and what it needs.
pub const LITERT: [Pin; 3] = [
    Pin {
        requirement: "ai-edge-litert==2.3.0",
        file: "ai_edge_litert-2.3.0-cp311-cp311-manylinux_2_27_x86_64.whl",
        sha256: "1f15078a6725d2357d9de9221664c29afa0545d807559c5f7199ce5e40b96b23",
    },
    FLATBUFFERS,
    NUMPY,
];

const FLATBUFFERS: Pin = Pin {
    requirement: "flatbuffers==25.12.19",
    file: "flatbuffers-25.12.19-py2.py3-none-any.whl",
    sha256: "7634f50c427838bb021c2d66a3d1168e9d199b0607e6329399f04846d42e20b4",
};

const NUMPY: Pin = Pin {
    requirement: "numpy==2.4.6",
    file: "numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    sha256: "89cd468399cfd2504718f0ba50e410dca55a170b61a02ad92bb18c8a65186e93",
};

/// Platform tags of the wheels above. They belong to the file, not to the Python that runs pip.
pub const PLATFORMS: [&str; 6] = [
    "manylinux_2_35_x86_64",
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_25_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
];

/// The same for wheels of 64-bit ARM.
pub const PLATFORMS_AARCH64: [&str; 2] = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"];
