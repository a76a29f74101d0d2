#include "lamella/train/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <string>

namespace lamella::train {
namespace {

/// Runs `work` with a Progress that writes to `writer`, and gives what came out at `reader`: all of it, which
/// ends in a newline. A terminal hands on what was written some time later.
template <class Work>
std::string output_of(int reader, int writer, Progress::Options options, Work&& work) {
  options.file_descriptor = writer;
  {
    Progress progress(options);
    work(progress);
  }
  std::string text;
  pollfd ready{.fd = reader, .events = POLLIN, .revents = 0};
  while (poll(&ready, 1, text.ends_with('\n') ? 0 : 5000) == 1 && (ready.revents & POLLIN) != 0) {
    char some[4096];
    const ssize_t bytes = ::read(reader, some, sizeof some);
    if (bytes <= 0) break;
    text.append(some, static_cast<std::size_t>(bytes));
  }
  return text;
}

struct Pipe {
  int ends[2] = {-1, -1};
  Pipe() { EXPECT_EQ(pipe(ends), 0); }
  ~Pipe() {
    close(ends[0]);
    close(ends[1]);
  }
};

TEST(ProgressTest, writes_plain_lines_to_a_pipe) {
  const Pipe pipe;
  const std::string text =
      output_of(pipe.ends[0], pipe.ends[1], {.label = "epoch 1/2", .total = 100, .plain_seconds = 0},
                [](Progress& progress) {
                  progress.add(40, {{"loss", "1.500"}});
                  progress.add(60, {{"loss", "1.250"}});
                  progress.finish();
                  progress.finish();
                });
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_EQ(text.rfind("epoch 1/2 40/100  loss 1.500  ", 0), 0u) << text;
  EXPECT_NE(text.find(" left 0:00\n"), std::string::npos) << text;
  const std::size_t last = text.rfind("epoch");
  EXPECT_EQ(text.find("epoch 1/2 100/100  loss 1.250  ", last), last) << text;
  EXPECT_EQ(text.substr(text.size() - 10), "took 0:00\n") << text;
}

TEST(ProgressTest, a_pipe_that_nobody_reads_does_not_end_the_program) {
  signal(SIGPIPE, SIG_DFL);
  Pipe pipe;
  close(pipe.ends[0]);
  pipe.ends[0] = -1;
  Progress::Options options{.total = 2, .plain_seconds = 0};
  options.file_descriptor = pipe.ends[1];
  Progress progress(options);
  progress.add(1);
  progress.add(1);
  progress.finish();
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  EXPECT_EQ(sigismember(&blocked, SIGPIPE), 0);  // elsewhere it is as it was
}

TEST(ProgressTest, says_little_to_a_pipe_in_a_short_time) {
  const Pipe pipe;
  const std::string text = output_of(pipe.ends[0], pipe.ends[1], {.total = 1000}, [](Progress& progress) {
    for (int i = 0; i < 1000; ++i) progress.add(1);
    progress.finish();
  });
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
}

TEST(ProgressTest, asks_for_figures_only_when_it_draws) {
  const Pipe pipe;
  int asked = 0;
  const std::string text = output_of(pipe.ends[0], pipe.ends[1], {.total = 1000}, [&](Progress& progress) {
    for (int i = 0; i < 1000; ++i)
      progress.add(1, [&asked, i] {
        ++asked;
        return Progress::Figures{{"step", std::to_string(i)}};
      });
    progress.finish();
  });
  EXPECT_EQ(asked, 1);
  EXPECT_NE(text.find("step 999"), std::string::npos) << text;
}

TEST(ProgressTest, draws_a_bar_on_a_terminal) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0) GTEST_SKIP() << "no pseudo-terminals here";
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  const int inside = open(ptsname(terminal), O_RDWR | O_NOCTTY);
  if (inside < 0) GTEST_SKIP() << "no pseudo-terminals here: /dev/pts is not mounted";
  const std::string text =
      output_of(terminal, inside, {.label = "epoch", .total = 4}, [](Progress& progress) {
        progress.add(1);
        usleep(150000);
        progress.add(1, {{"loss", "0.1"}});
        progress.add(2);
        progress.finish();
      });
  close(inside);
  close(terminal);
  EXPECT_NE(text.find("\r\033[Kepoch [==========>         ] 2/4  loss 0.1  "), std::string::npos) << text;
  EXPECT_NE(text.find("epoch 4/4"), std::string::npos) << text;
}

TEST(ProgressTest, survives_a_closed_descriptor) {
  Progress progress({.total = 10, .plain_seconds = 0, .file_descriptor = 987});
  progress.add(5);
  progress.finish();
  EXPECT_GT(progress.rate(), 0);
}

}  // namespace
}  // namespace lamella::train
