//! The devices that are known by name: `.lathe/devices.toml`, and how to reach them.

mod address;
mod kilobytes;
mod registry;
mod runner;

pub use address::SshAddress;
pub use kilobytes::Kilobytes;
pub use registry::{REGISTRY, RegisteredDevice, Registry, Way, check_name};
pub use runner::{DeviceRunner, machine, start};
