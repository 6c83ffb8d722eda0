//! The binary door.

use omni::kernel::Interpreter;

fn main() {
    let code = omni::cli::run(std::env::args_os().collect(), Interpreter::Embedded);
    omni::kernel::interpreter::leave(code)
}
