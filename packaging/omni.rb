# Made by tools/recipes for omni @version@.
class Omni < Formula
  desc "Assistant in one binary: a Rust core with Python tools inside"
  homepage "@home@"
  version "@version@"
  license "Apache-2.0"

  depends_on :linux

  on_intel do
    url "@url@/download/v@version@/@name x86_64-unknown-linux-gnu.gz@"
    sha256 "@sha256 x86_64-unknown-linux-gnu.gz@"
  end

  on_arm do
    url "@url@/download/v@version@/@name aarch64-unknown-linux-gnu.gz@"
    sha256 "@sha256 aarch64-unknown-linux-gnu.gz@"
  end

  def install
    bin.install Dir["omni-*"].first => "omni"
    chmod 0755, bin/"omni"
    generate_completions_from_executable(bin/"omni", "completions")
    system bin/"omni", "man", man1
  end

  test do
    assert_equal "omni #{version}", shell_output("#{bin}/omni --version").strip
    assert_equal "2", shell_output("#{bin}/omni python -c 'print(1 + 1)'").strip
  end
end
