//! Writing a setting into a file, whose comments and order stay as they are.

use std::io::Write;
use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, value};

/// Sets a key (`model.name`) in a file of settings, which is made if there is none. The file is
/// replaced as a whole, so that it is never half written.
pub fn set(file: &Path, key: &str, text: &str) -> Result<(), String> {
    // A link to a file that is kept elsewhere stays one.
    let file = &file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let problem =
        |what: &str, error: &dyn std::fmt::Display| format!("`{}` cannot be {what}: {error}", file.display());
    let old = match std::fs::read_to_string(file) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(problem("read", &error)),
    };
    let mut document: DocumentMut = old.parse().map_err(|error| problem("understood", &error))?;
    let mut table = document.as_table_mut();
    let (path, name) = key.rsplit_once('.').unwrap_or(("", key));
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let entry = table.entry(step).or_insert_with(|| Item::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| problem("changed", &format!("`{step}` is no table")))?;
    }
    match table.get_mut(name) {
        // What stands beside the old value is about the key and not about the value.
        Some(Item::Value(old)) => {
            let decor = old.decor().clone();
            *old = text.into();
            *old.decor_mut() = decor;
        }
        _ => drop(table.insert(name, value(text))),
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(document.to_string().as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(file).map_err(|error| error.error)
    };
    write().map(drop).map_err(|error| problem("written", &error))
}
