// Errors: the exceptions of everything outside the control loop; bindings map them one to one to errors.py.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace wallx {

// A message says what, the value, the bound, and where to fix it.
struct WallxError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ConfigError : WallxError {
  using WallxError::WallxError;
};
struct CheckpointError : WallxError {
  using WallxError::WallxError;
};
struct DeviceError : WallxError {
  using WallxError::WallxError;
};
struct BusError : WallxError {
  using WallxError::WallxError;
};
struct BusTimeout : BusError {
  using BusError::BusError;
};
struct CalibrationError : WallxError {
  using WallxError::WallxError;
};
struct SafetyStop : WallxError {
  using WallxError::WallxError;
};

}  // namespace wallx
