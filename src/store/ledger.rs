//! What models have cost, day by day, over all processes of a database.

use sqlx::Row;

use super::{Error, Store};
use crate::message::Usage;

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tokens, prompts and answers.
    pub tokens: u64,
    /// What they cost, in millionths of a dollar, as far as that is known.
    pub cost: u64,
    /// Those of the tokens whose price is not known.
    pub unpriced: u64,
}

impl From<Usage> for Spent {
    fn from(usage: Usage) -> Self {
        let tokens = usage.total();
        let unpriced = if usage.cost.is_none() { tokens } else { 0 };
        Self { tokens, cost: usage.cost.unwrap_or_default(), unpriced }
    }
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.cost = self.cost.saturating_add(more.cost);
        self.unpriced = self.unpriced.saturating_add(more.unpriced);
    }
}

/// What was used on a day, by all who share a purse.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
}

impl Ledger {
    /// The one in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// What was used of a purse on a day.
    pub async fn spent(&self, purse: &str, day: &str) -> Result<Spent, Error> {
        let explain = |error| self.store.explain(error);
        let row = sqlx::query("SELECT tokens, cost, unpriced FROM spent WHERE purse = $1 AND day = $2")
            .bind(purse.to_owned())
            .bind(day.to_owned())
            .fetch_optional(self.store.pool())
            .await
            .map_err(explain)?;
        let Some(row) = row else { return Ok(Spent::default()) };
        let count = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs).map_err(explain);
        Ok(Spent { tokens: count("tokens")?, cost: count("cost")?, unpriced: count("unpriced")? })
    }

    /// Takes note of more.
    pub async fn add(&self, purse: &str, day: &str, more: Spent) -> Result<(), Error> {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let statement = sqlx::query(
            "INSERT INTO spent (purse, day, tokens, cost, unpriced) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (purse, day) DO UPDATE SET tokens = spent.tokens + excluded.tokens, \
             cost = spent.cost + excluded.cost, unpriced = spent.unpriced + excluded.unpriced",
        )
        .bind(purse)
        .bind(day)
        .bind(number(more.tokens))
        .bind(number(more.cost))
        .bind(number(more.unpriced));
        self.store.once(statement).await.map(drop)
    }
}
