//! Results as files, in the one folder that is for them.

use std::path::Path;

use jiff::tz::TimeZone;

use crate::hub::file;
use crate::store::job::Run;

/// Writes what came of a run to a file of `folder`, whole or not at all. `{date}` and `{time}` in its
/// path are when the run was due.
pub(super) async fn write(folder: &Path, path: &str, run: &Run, zone: &TimeZone) -> Result<(), String> {
    let due = run.due.to_zoned(zone.clone());
    let path = path.replace("{date}", &due.strftime("%Y-%m-%d").to_string());
    let path = path.replace("{time}", &due.strftime("%H%M%S").to_string());
    let text = match run.error.is_empty() {
        true => format!("{}\n", run.output.trim_end()),
        false => format!("failed: {}\n\n{}\n", run.error, run.output.trim_end()),
    };
    let folder = folder.to_owned();
    let written = tokio::task::spawn_blocking(move || file::put(&folder, Path::new(&path), &text, true));
    let written = written.await.map_err(|error| error.to_string())?;
    written.map(drop).map_err(|error| error.to_string())
}
