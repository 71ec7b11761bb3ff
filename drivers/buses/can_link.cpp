// CanLink: one question over rtnetlink.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/can_link.hpp"

#include <linux/can/netlink.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace wallx {
namespace {

// the attribute of a type among those that follow each other in `first`, or null
const rtattr* find(const rtattr* first, int size, unsigned short type) {
  for (const rtattr* one = first; RTA_OK(one, size); one = RTA_NEXT(one, size))
    if ((one->rta_type & NLA_TYPE_MASK) == type) return one;
  return nullptr;
}

const rtattr* find_inside(const rtattr* outer, unsigned short type) {
  if (!outer) return nullptr;
  return find(static_cast<const rtattr*>(RTA_DATA(outer)), static_cast<int>(RTA_PAYLOAD(outer)), type);
}

int bit_rate(const rtattr* timing) {
  can_bittiming values{};
  if (!timing || RTA_PAYLOAD(timing) < sizeof values) return 0;
  std::memcpy(&values, RTA_DATA(timing), sizeof values);
  return static_cast<int>(values.bitrate);
}

}  // namespace

CanLink read_can_link(int interface_index) {
  CanLink link;
  const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return link;
  struct {
    nlmsghdr head;
    ifinfomsg interface;
  } request{};
  request.head.nlmsg_len = sizeof request;
  request.head.nlmsg_type = RTM_GETLINK;
  request.head.nlmsg_flags = NLM_F_REQUEST;
  request.interface.ifi_index = interface_index;
  alignas(nlmsghdr) std::array<char, 16384> answer;
  const bool is_asked = ::send(fd, &request, sizeof request, 0) == static_cast<ssize_t>(sizeof request);
  // the kernel has answered by the time that send() returns
  const ssize_t size = is_asked ? ::recv(fd, answer.data(), answer.size(), MSG_DONTWAIT) : -1;
  ::close(fd);
  const auto* head = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (size < 0 || !NLMSG_OK(head, static_cast<unsigned>(size)) || head->nlmsg_type != RTM_NEWLINK)
    return link;
  const auto* about = static_cast<const ifinfomsg*>(NLMSG_DATA(head));
  const rtattr* data =
      find_inside(find(IFLA_RTA(about), static_cast<int>(IFLA_PAYLOAD(head)), IFLA_LINKINFO), IFLA_INFO_DATA);
  link.bit_rate = bit_rate(find_inside(data, IFLA_CAN_BITTIMING));
  link.data_bit_rate = bit_rate(find_inside(data, IFLA_CAN_DATA_BITTIMING));
  return link;
}

}  // namespace wallx
