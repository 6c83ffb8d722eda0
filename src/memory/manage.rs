//! What people do with a memory: look at it, judge it, change it, forget.

use std::path::Path;

use jiff::Timestamp;

use super::episode::{self, Episode, Kind, Outcome, Reader};
use super::value::{Trust, Value};
use super::{By, Error, History, Memory, Told, Worth, fact, kept, plot, rank};

/// A note that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// The note.
    pub note: Episode,
    /// What it took the place of, as it was.
    pub replaced: Vec<Episode>,
}

/// An episode that holds no longer, since another one does.
fn retired(old: Episode, new: &Episode) -> Episode {
    Episode { superseded: Some(new.id.clone()), until: Some(new.created), ..old }
}

impl Memory {
    /// Everything there is, the youngest first.
    pub async fn list(&self) -> Result<Vec<Worth>, Error> {
        self.flush().await?;
        let Some(table) = self.table().await? else { return Ok(Vec::new()) };
        let all = table.all().await?;
        self.worth(all).await
    }

    /// What fits the question, the best first, without the limits of a prompt.
    pub async fn search(&self, asked: &str, reader: &Reader, limit: usize) -> Result<Vec<Worth>, Error> {
        let mut found = self.find(asked, reader, By::Fit).await?;
        found.truncate(limit);
        let found = found.into_iter().map(|found| {
            let similarity = rank::similarity(&self.candidate(&found), rank::WORDS, found.scale);
            Worth { similarity, ..self.judged(Episode::clone(&found.episode), &found.history) }
        });
        Ok(found.collect())
    }

    /// The one memory of this id, or whose id begins so.
    pub async fn get(&self, id: &str) -> Result<Worth, Error> {
        let mut found = self.list().await?;
        found.retain(|worth| worth.episode.id.starts_with(id));
        if let Some(place) = found.iter().position(|worth| worth.episode.id == id) {
            return Ok(found.swap_remove(place));
        }
        match found.len() {
            0 => Err(Error::Unknown(id.to_owned())),
            1 => Ok(found.remove(0)),
            _ => Err(Error::Ambiguous(id.to_owned())),
        }
    }

    /// What these are worth now.
    pub async fn worth(&self, episodes: Vec<Episode>) -> Result<Vec<Worth>, Error> {
        let histories = self.ledger.histories(&episodes.iter().collect::<Vec<_>>()).await?;
        Ok(episodes
            .into_iter()
            .map(|episode| {
                let history = histories.get(&episode.id).cloned().unwrap_or_default();
                self.judged(episode, &history)
            })
            .collect())
    }

    /// The episodes of these ids that are still there.
    pub async fn named(&self, ids: &[&str]) -> Result<Vec<Worth>, Error> {
        self.flush().await?;
        let Some(table) = self.table().await? else { return Ok(Vec::new()) };
        let episodes = table.get(ids).await?;
        self.worth(episodes).await
    }

    /// What the memory did in a turn; without one, in the last.
    pub async fn why(&self, turn: Option<&str>) -> Result<Told, Error> {
        let last = match turn {
            Some(turn) => turn.to_owned(),
            None => self.ledger.last(None).await?.ok_or_else(|| Error::Turn("(the last)".to_owned()))?,
        };
        self.ledger.tell(&last).await
    }

    /// How turns went, and what episodes are worth, as an image in SVG.
    pub async fn plot(&self) -> Result<String, Error> {
        let mut worth = self.list().await?;
        worth.retain(|worth| worth.episode.superseded.is_none() && worth.episode.kind == Kind::Episode);
        let values: Vec<f64> = worth.iter().map(|worth| worth.value).collect();
        Ok(plot::svg(&self.ledger.course().await?, &values))
    }

    /// The last turn of a session.
    pub async fn last(&self, session: &str) -> Result<Option<String>, Error> {
        self.ledger.last(Some(session)).await
    }

    /// A person's verdict on a turn.
    pub async fn judge(&self, turn: &str, good: bool) -> Result<(), Error> {
        self.ledger.tell(turn).await?;
        self.ledger.judge(turn, if good { 1.0 } else { -1.0 }, Timestamp::now()).await
    }

    /// Takes back what a turn taught, or lets it count again.
    pub async fn undo(&self, turn: &str, undone: bool) -> Result<(), Error> {
        self.ledger.tell(turn).await?;
        self.ledger.undo(turn, undone).await
    }

    /// The turns since a moment.
    pub async fn since(&self, moment: Timestamp) -> Result<Vec<String>, Error> {
        self.ledger.since(moment).await
    }

    /// Keeps a note. It takes the place of those that said something else [of the same](fact), in
    /// the same scope and from who is trusted no more; they are kept, out of sight.
    pub async fn note(
        &self,
        note: &str,
        reader: &Reader,
        trust: Trust,
        workspace: &Path,
    ) -> Result<Noted, Error> {
        let note = Episode {
            id: uuid::Uuid::now_v7().to_string(),
            kind: Kind::Note,
            scope: reader.own(),
            intent: String::new(),
            experience: kept(note, episode::EXPERIENCE),
            outcome: Outcome::Unknown,
            trust,
            session: reader.session.clone(),
            turn: String::new(),
            workspace: workspace.display().to_string(),
            created: Timestamp::now(),
            pinned: false,
            superseded: None,
            until: None,
        };
        let replaced = self.contradicted(&note).await?;
        let old = replaced.iter().map(|old| retired(old.clone(), &note));
        let all: Vec<Episode> = old.chain([note.clone()]).collect();
        self.put(&all).await?;
        Ok(Noted { note, replaced })
    }

    /// The notes that say something else of what this one is about.
    async fn contradicted(&self, note: &Episode) -> Result<Vec<Episode>, Error> {
        let Some(about) = fact::about(&note.experience) else { return Ok(Vec::new()) };
        self.flush().await?;
        let Some(table) = self.table().await? else { return Ok(Vec::new()) };
        let mut notes = table.notes(&note.scope).await?;
        notes.retain(|old| old.trust <= note.trust && fact::about(&old.experience).as_ref() == Some(&about));
        Ok(notes)
    }

    /// Puts other words in the place of an episode's. The old one is kept, out of sight.
    pub async fn edit(&self, id: &str, experience: &str) -> Result<Episode, Error> {
        let old = self.get(id).await?.episode;
        let new = Episode {
            id: uuid::Uuid::now_v7().to_string(),
            experience: kept(experience, episode::EXPERIENCE),
            trust: Trust::Said,
            created: Timestamp::now(),
            ..old.clone()
        };
        let old = retired(old, &new);
        self.put(&[new.clone(), old]).await?;
        Ok(new)
    }

    /// Keeps an episode from eviction, or no longer.
    pub async fn pin(&self, id: &str, pinned: bool) -> Result<Episode, Error> {
        let episode = Episode { pinned, ..self.get(id).await?.episode };
        self.put(std::slice::from_ref(&episode)).await?;
        Ok(episode)
    }

    /// Adds episodes that come from elsewhere: anybody may have written them.
    pub async fn import(&self, lines: &str) -> Result<usize, Error> {
        let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let read = lines.map(|(place, line)| {
            let read: Result<Worth, _> = serde_json::from_str(line);
            let episode =
                read.map_err(|error| Error::Line { line: place + 1, reason: error.to_string() })?.episode;
            Ok(Episode {
                trust: Trust::Foreign,
                intent: kept(&episode.intent, episode::INTENT),
                experience: kept(&episode.experience, episode::EXPERIENCE),
                ..episode
            })
        });
        let episodes: Vec<Episode> = read.collect::<Result<_, Error>>()?;
        self.put(&episodes).await?;
        Ok(episodes.len())
    }

    fn judged(&self, episode: Episode, history: &History) -> Worth {
        let uses = history.uses.iter().copied();
        let Value { value, tries, wins } = self.settings.value.value(episode.trust, history.birth, uses);
        Worth { episode, value, tries, wins, similarity: None }
    }

    pub(super) async fn put(&self, episodes: &[Episode]) -> Result<(), Error> {
        self.flush().await?;
        self.writing(async |table| {
            table.put(episodes).await?;
            table.tend(self.is_large(table).await?).await
        })
        .await
    }

    /// Removes memories for good: from the table, its index and its older versions, and from the
    /// ledger. The conversations they come from stay.
    pub async fn forget(&self, ids: &[&str]) -> Result<Vec<Episode>, Error> {
        self.flush().await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.writing(async |table| {
            let mut all = table.all().await?;
            // What an edit has put out of sight goes with what took its place.
            all.retain(|episode| {
                ids.contains(&episode.id.as_str())
                    || episode.superseded.as_deref().is_some_and(|other| ids.contains(&other))
            });
            self.remove(table, &all.iter().collect::<Vec<_>>()).await?;
            Ok(all)
        })
        .await
    }

    /// Removes all that comes from a session, or everything; also what was asked in turns that
    /// taught nothing.
    pub async fn forget_all(&self, session: Option<&str>) -> Result<Vec<Episode>, Error> {
        let mut found = self.list().await?;
        found.retain(|worth| session.is_none_or(|session| worth.episode.session == session));
        let gone =
            self.forget(&found.iter().map(|worth| worth.episode.id.as_str()).collect::<Vec<_>>()).await?;
        self.ledger.blank(session).await?;
        Ok(gone)
    }

    /// Where the table is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
