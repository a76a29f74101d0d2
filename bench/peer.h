#pragma once

#include <string>
#include <vector>

namespace lamella::bench {

/// A Python script that answers requests line by line: another library's side of a benchmark.
class Peer {
 public:
  /// Starts `script` with `arguments` in the first Python that has what it needs: $LAMELLA_PYTHON, or else
  /// python3, /usr/bin/python3, /usr/local/bin/python3. The script's first line is its version(); one that
  /// ends before is taken for one that lacks `package`. Throws std::runtime_error if none has it.
  Peer(const std::string& script, const std::vector<std::string>& arguments, const std::string& package);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& version() const { return version_; }
  /// Sends a line and returns the answer's. Throws std::runtime_error if the script has ended.
  std::string ask(const std::string& request);

 private:
  bool start(const std::string& python, const std::string& script, const std::vector<std::string>& arguments);
  bool read_line(std::string& line);
  void stop();

  int child_ = -1;
  int requests_ = -1;
  int answers_ = -1;
  std::string version_;
  std::string unread_;
};

}  // namespace lamella::bench
