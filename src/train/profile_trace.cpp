#include <map>
#include <nlohmann/json.hpp>

#include "io/file.h"
#include "lamella/train/profile.h"
#include "train/profile_record.h"

namespace lamella::train {

namespace {

using nlohmann::json;

// As processes and threads, which is how the viewers draw rows.
constexpr int kCpu = 1, kGpu = 2;
constexpr int kSteps = 1, kCalls = 2;

json name_row(const char* kind, int process, int thread, const std::string& name) {
  return {{"ph", "M"}, {"name", kind}, {"pid", process}, {"tid", thread}, {"args", {{"name", name}}}};
}

json span(const std::string& name, const char* category, int process, int thread, double begin, double end) {
  return {{"ph", "X"},     {"name", name},      {"cat", category},           {"pid", process},
          {"tid", thread}, {"ts", 1e6 * begin}, {"dur", 1e6 * (end - begin)}};
}

}  // namespace

std::string Profile::trace() const {
  const Record& record = *record_;
  json events = json::array();
  if (record.is_over()) {
    const double start = record.marks.front();
    const std::string device = record.log->device.to_string();
    const bool on_gpu = record.log->device.is_cuda();
    events.push_back(name_row("process_name", kCpu, 0, "CPU"));
    events.push_back(name_row("thread_name", kCpu, kSteps, "steps"));
    events.push_back(name_row("thread_name", kCpu, kCalls, "kernels"));
    if (on_gpu) events.push_back(name_row("process_name", kGpu, 0, device));
    for (std::size_t i = 1; i < record.marks.size(); ++i)
      events.push_back(span("step " + std::to_string(i), "step", kCpu, kSteps, record.marks[i - 1] - start,
                            record.marks[i] - start));
    std::map<void*, int> streams;
    for (std::size_t i = 0; i < record.log->kernels.size(); ++i) {
      const auto& call = record.log->kernels[i];
      const char* const pass = name(static_cast<ProfiledPass>(call.pass));
      const std::string kernel = lamella::detail::profiling::name_of_call(call.call);
      const json figures{
          {"operator", operator_of(call)}, {"bytes read", call.read}, {"bytes written", call.written}};
      json on_cpu = span(kernel, pass, kCpu, kCalls, call.begin - start, call.end - start);
      on_cpu["args"] = figures;
      events.push_back(std::move(on_cpu));
      if (!on_gpu || record.gpu.spans[i].begin == record.gpu.spans[i].end) continue;
      const auto [stream, is_new] = streams.try_emplace(call.stream, static_cast<int>(streams.size()) + 1);
      if (is_new)
        events.push_back(
            name_row("thread_name", kGpu, stream->second, "stream " + std::to_string(stream->second)));
      json run = span(kernel, pass, kGpu, stream->second, record.gpu.spans[i].begin - start,
                      record.gpu.spans[i].end - start);
      run["args"] = figures;
      events.push_back(std::move(run));
    }
    for (const MemoryMoment& moment : memory()) {
      json sizes;
      for (std::size_t purpose = 0; purpose < kPurposes; ++purpose)
        sizes[name(static_cast<MemoryPurpose>(purpose))] = moment.in_use[purpose];
      events.push_back({{"ph", "C"},
                        {"name", "memory of " + device},
                        {"pid", kCpu},
                        {"ts", 1e6 * moment.seconds},
                        {"args", std::move(sizes)}});
    }
  }
  return json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump(
             -1, ' ', false, json::error_handler_t::replace) +  // a user's operator may have any name
         '\n';
}

void Profile::save_trace(const std::filesystem::path& path) const {
  const std::string text = trace();
  lamella::detail::AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

}  // namespace lamella::train
