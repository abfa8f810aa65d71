#include "common/device/device_list.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/device/list_cuda.h"

namespace basin {
namespace {

DeviceInfo Cpu() { return {"cpu", "OpenBLAS and oneTBB", true, ""}; }

}  // namespace

std::vector<DeviceInfo> ListDevices(DeviceUse use) {
  std::vector<DeviceInfo> devices = {Cpu()};
  for (DeviceInfo& device : ListCudaDevices(use)) devices.push_back(std::move(device));
  return devices;
}

absl::StatusOr<DeviceInfo> FindDevice(absl::string_view name, DeviceUse use) {
  if (name == "cpu") return Cpu();
  if (name == "auto") {
    for (const DeviceInfo& device : ListCudaDevices(use)) {
      if (device.viable) return device;
    }
    return Cpu();
  }
  absl::string_view number_text = name;
  int number = 0;
  if (!absl::ConsumePrefix(&number_text, "cuda") ||
      !(number_text.empty() ||
        (absl::ConsumePrefix(&number_text, ":") && absl::SimpleAtoi(number_text, &number) && number >= 0))) {
    return absl::InvalidArgumentError(
        absl::StrCat("device \"", name, "\" is unknown; use auto, cpu, cuda or cuda:NUMBER"));
  }
  const std::string wanted = absl::StrCat("cuda:", number);
  std::vector<std::string> others;
  for (const DeviceInfo& device : ListCudaDevices(use)) {
    if (device.name == wanted && device.viable) return device;
    others.push_back(device.viable ? absl::StrCat(device.name, " can be used")
                                   : absl::StrCat(device.name, ": ", device.reason));
    if (device.name == wanted) others = {device.reason};
    if (device.name == wanted) break;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("device ", wanted, ": ", absl::StrJoin(others, "; "), "; or use cpu"));
}

}  // namespace basin
