//! A plan that the model keeps where somebody watches it: an editor shows its steps and how far they are.
//!
//! Nothing is done here. The call itself is the plan, so the log has it, and whoever shows the call shows it.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Annotations, Call, Error, Output, Spec, Toolset};

/// The name of the tool.
pub const SET: &str = "plan.set";
/// Steps of a plan.
const STEPS: usize = 50;

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Step {
    /// What is to be done.
    pub what: String,
    /// How far it is.
    pub state: State,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was not begun.
    Open,
    /// It is worked on.
    Begun,
    /// It is done.
    Done,
}

/// The steps that a call has set; `None` if they cannot be read.
pub fn steps(arguments: &Map<String, Value>) -> Option<Vec<Step>> {
    let steps: Vec<Step> = serde_json::from_value(arguments.get("steps")?.clone()).ok()?;
    (steps.len() <= STEPS).then_some(steps)
}

/// Brings the tool.
#[derive(Debug)]
pub struct Plan;

#[async_trait]
impl Toolset for Plan {
    fn specs(&self) -> Vec<Arc<Spec>> {
        let step = json!({
            "type": "object",
            "properties": {
                "what": {"type": "string"},
                "state": {"enum": ["open", "begun", "done"]},
            },
            "required": ["what", "state"],
        });
        let input = json!({
            "type": "object",
            "properties": {"steps": {"type": "array", "items": step, "maxItems": STEPS}},
            "required": ["steps"],
        });
        vec![Arc::new(Spec {
            name: SET.to_owned(),
            description:
                "Shows the person your plan for work of several steps. Give all steps each time one is begun or done."
                    .to_owned(),
            input,
            annotations: Annotations {
                read_only: true,
                destructive: false,
                idempotent: true,
                open_world: false,
            },
            ..Spec::default()
        })]
    }

    async fn call(&self, _: Call) -> Result<Output, Error> {
        Ok(Output::text("shown"))
    }
}
