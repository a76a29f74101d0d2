#include "program.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::test {

std::ostream& operator<<(std::ostream& stream, const Outcome& outcome) {
  return stream << "status " << outcome.status << "\nout: " << outcome.out << "\nerror: " << outcome.error;
}

Outcome mobilenet(const std::vector<std::string>& arguments, const RunConditions& conditions) {
  int out[2], error[2];
  if (pipe(out) != 0 || pipe(error) != 0) throw std::runtime_error("pipe");
  std::string program = MOBILENET_PROGRAM;
  std::vector<char*> argv{program.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);

  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    dup2(out[1], STDOUT_FILENO);
    dup2(error[1], STDERR_FILENO);
    for (const int end : {out[0], out[1], error[0], error[1]}) close(end);
    if (conditions.largest_file > 0) {
      signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{conditions.largest_file, conditions.largest_file};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (conditions.first) conditions.first();
    // The program that is started has no more than this set.
    if (conditions.as_user && geteuid() == 0)
      for (const int right : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER})
        if (prctl(PR_CAPBSET_DROP, right, 0, 0, 0) != 0) _exit(126);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(out[1]);
  close(error[1]);

  Outcome outcome;
  bool sent = conditions.interrupt_after.empty();
  pollfd ends[] = {{out[0], POLLIN, 0}, {error[0], POLLIN, 0}};
  for (int open = 2; open > 0;) {
    if (poll(ends, 2, -1) < 0) continue;
    for (pollfd& end : ends) {
      if (end.fd < 0 || end.revents == 0) continue;
      char bytes[4096];
      const ssize_t count = read(end.fd, bytes, sizeof bytes);
      if (count > 0) {
        (end.fd == out[0] ? outcome.out : outcome.error).append(bytes, static_cast<std::size_t>(count));
      } else {
        end.fd = -1;
        --open;
      }
    }
    if (!sent && outcome.out.find(conditions.interrupt_after) != std::string::npos) {
      if (conditions.then) conditions.then();
      kill(child, conditions.signal);
      sent = true;
    }
  }
  close(out[0]);
  close(error[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

void make_small_dataset(const std::filesystem::path& folder) {
  const std::vector<std::string> classes = {"bars", "dark", "light"};
  for (const auto& [part, count] : {std::pair{"train", 8}, std::pair{"test", 3}})
    for (std::size_t c = 0; c < classes.size(); ++c)
      for (int i = 0; i < count; ++i) {
        data::Image image(8, 8, 3, c == 1 ? 20 : 230);
        for (int y = 0; c == 0 && y < 8; y += 2)
          for (std::size_t x = 0; x < image.row_bytes(); ++x) image.row(y)[x] = 10;
        image.pixels[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(100 + i);
        put_file(folder / part / classes[c] / ("image" + std::to_string(i) + ".png"), encode_png(image));
      }
}

}  // namespace lamella::test
