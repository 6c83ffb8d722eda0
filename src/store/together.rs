//! Statements that go together.
//!
//! SQLite's driver has a thread for each connection, so every statement is a way to that thread and
//! back, which costs more than most statements do. It takes several of them in one text, though. A
//! server is sent one after the other.

use futures::TryStreamExt;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AssertSqlSafe, Either, Execute, Executor};

use super::{Error, Kind, Statement, Store};

impl Store {
    /// Runs statements that write, in one transaction: all of them or none. They are durable when
    /// this returns; returns how many rows each has changed. Dropped before that, they may have
    /// happened or not.
    pub async fn all(&self, statements: Vec<Statement>) -> Result<Vec<u64>, Undone> {
        if self.kind == Kind::Postgres {
            return self.one_by_one(statements).await;
        }
        let undone = |place| move |error| Undone { place, error };
        let count = statements.len();
        let (text, values) = joined(statements).map_err(undone(0))?;
        let text = AssertSqlSafe(format!("BEGIN IMMEDIATE; {text}; COMMIT"));
        let mut unsure = Unsure(Some(self.writer.acquire().await.map_err(undone(0))?));
        let connection = unsure.0.as_deref_mut().expect("just put there");
        let (mut changed, mut done) =
            (Vec::with_capacity(count + 2), connection.fetch_many(sqlx::query_with::<Any, _>(text, values)));
        while let Some(next) = done.try_next().await.map_err(undone(changed.len().saturating_sub(1)))? {
            changed.extend(next.left().map(|done| done.rows_affected()));
        }
        drop(done);
        unsure.settle();
        // Those of BEGIN and COMMIT are nobody's.
        changed.pop();
        changed.remove(0);
        Ok(changed)
    }

    async fn one_by_one(&self, statements: Vec<Statement>) -> Result<Vec<u64>, Undone> {
        let undone = |place| move |error| Undone { place, error };
        let mut write = self.writer.begin().await.map_err(undone(0))?;
        let mut changed = Vec::with_capacity(statements.len());
        for statement in statements {
            let done = statement.execute(&mut *write).await.map_err(undone(changed.len()))?;
            changed.push(done.rows_affected());
        }
        write.commit().await.map_err(undone(changed.len()))?;
        Ok(changed)
    }

    /// Runs statements that read, and returns the rows of each. Others may write in between.
    pub async fn rows(&self, statements: Vec<Statement>) -> Result<Vec<Vec<AnyRow>>, Error> {
        let explain = |error| self.explain(error);
        let mut all = Vec::with_capacity(statements.len());
        if self.kind == Kind::Postgres {
            for statement in statements {
                all.push(statement.fetch_all(&self.pool).await.map_err(explain)?);
            }
            return Ok(all);
        }
        let (text, values) = joined(statements).map_err(explain)?;
        let query = sqlx::query_with::<Any, _>(AssertSqlSafe(text), values);
        let (mut found, mut rows) = (self.pool.fetch_many(query), Vec::new());
        while let Some(next) = found.try_next().await.map_err(explain)? {
            match next {
                Either::Right(row) => rows.push(row),
                Either::Left(_) => all.push(std::mem::take(&mut rows)),
            }
        }
        Ok(all)
    }
}

/// Why statements have not happened, none of them.
#[derive(Debug)]
pub struct Undone {
    /// Which of them could not be done, counted from 0; their number where it was the end.
    pub place: usize,
    /// Why.
    pub error: sqlx::Error,
}

/// A connection that may be in the middle of a transaction that the driver does not know of. Dropped
/// as such it is not used again; SQLite takes back what was not committed when it closes.
struct Unsure(Option<PoolConnection<Any>>);

impl Unsure {
    fn settle(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Unsure {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// Several statements as one, with the values of all.
fn joined(statements: Vec<Statement>) -> Result<(String, AnyArguments), sqlx::Error> {
    let (mut text, mut all) = (String::new(), AnyArguments::default());
    for mut statement in statements {
        let values = statement.take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
        if !text.is_empty() {
            text.push_str("; ");
        }
        renumber(&mut text, statement.sql().as_str(), all.values.0.len());
        all.values.0.extend(values.values.0);
    }
    Ok((text, all))
}

/// Adds a statement whose placeholders are to begin after the number `offset`.
fn renumber(text: &mut String, statement: &str, offset: usize) {
    let mut parts = statement.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        text.push('$');
        match number.parse::<usize>() {
            Ok(number) => text.push_str(&(number + offset).to_string()),
            // No placeholder: a letter of a text.
            Err(_) => text.push_str(number),
        }
        text.push_str(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_the_second_statement_follow_those_of_the_first() {
        let first = sqlx::query("UPDATE a SET b = $2 WHERE c = $1").bind("x").bind(1_i64);
        let second = sqlx::query("DELETE FROM a WHERE b = $1 AND c = '$' AND d = $10").bind("y");
        let (text, values) = joined(vec![first, second]).unwrap();
        assert_eq!(
            text,
            "UPDATE a SET b = $2 WHERE c = $1; DELETE FROM a WHERE b = $3 AND c = '$' AND d = $12"
        );
        assert_eq!(values.values.0.len(), 3);
    }
}
