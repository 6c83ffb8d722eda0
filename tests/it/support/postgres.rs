//! A private PostgreSQL server, started once for the whole test program.
//!
//! A shell holds the server and waits for the end of its standard input. The other end of
//! that pipe is ours, so however this program ends, the shell sees it, stops the server and
//! removes its folder.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The URL of a new, empty database.
pub fn database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let server = server();
    let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    server.sql(&format!("CREATE DATABASE {name}")).expect("a new database");
    server.url(&name)
}

/// The server, started by the first who asks.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    _shell: Child,
}

const SCRIPT: &str = r#"
"$PROGRAMS/initdb" -D "$FOLDER/data" -U postgres -A trust -E UTF8 --locale=C --no-sync || exit 1
"$PROGRAMS/postgres" -D "$FOLDER/data" -k "$FOLDER" -c listen_addresses= -c fsync=off \
    -c max_connections=200 </dev/null &
cat >/dev/null
kill -QUIT $!
wait $!
rm -rf "$FOLDER"
"#;

impl Server {
    fn start() -> Self {
        let programs = programs();
        // Short, and not below TMPDIR: the path of a socket may have 107 bytes.
        let folder = tempfile::Builder::new()
            .prefix("omni-pg-")
            .tempdir_in("/tmp")
            .expect("a temporary folder")
            .keep();
        let log = std::fs::File::create(folder.join("log")).expect("a log file");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", SCRIPT])
            .env("PROGRAMS", &programs)
            .env("FOLDER", &folder)
            .current_dir("/tmp")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        // PostgreSQL refuses to run as root.
        if unsafe { libc::geteuid() } == 0 {
            let (user, group) = postgres_user();
            std::os::unix::fs::chown(&folder, Some(user), Some(group)).expect("root may chown");
            shell.uid(user).gid(group);
        }
        let mut server = Self { programs, folder, _shell: shell.spawn().expect("a shell") };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = self.sql("SELECT 1") {
            let ended = self._shell.try_wait().expect("the shell is our child").is_some();
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("PostgreSQL did not start: {error}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The URL of a database on it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.folder.display())
    }

    /// Runs a statement in the database `postgres`.
    pub fn sql(&self, statement: &str) -> Result<(), String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-c", statement])
            .arg("-h")
            .arg(&self.folder)
            .output()
            .expect("psql starts");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

/// Where Debian's package puts them; the newest version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("these tests need PostgreSQL: apt-get install postgresql");
    Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin")
}

fn postgres_user() -> (u32, u32) {
    let entry = unsafe { libc::getpwnam(c"postgres".as_ptr()) };
    assert!(!entry.is_null(), "the package postgresql makes a user `postgres`");
    unsafe { ((*entry).pw_uid, (*entry).pw_gid) }
}
