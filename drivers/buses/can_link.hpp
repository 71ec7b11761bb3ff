// CanLink: the bit rates that a CAN interface of the kernel was brought up with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace wallx {

struct CanLink {
  int bit_rate = 0;       // of arbitration; 0: the interface has none, as virtual ones  [bit/s]
  int data_bit_rate = 0;  // of FD data; 0: it has none                                   [bit/s]
};

// Asks the kernel; `interface_index` as if_nametoindex() gives it. Zeros where it does not tell.
CanLink read_can_link(int interface_index);

}  // namespace wallx
