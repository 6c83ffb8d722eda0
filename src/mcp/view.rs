//! What of the toolbox a server shows, and under which names.

use std::sync::Arc;

use rmcp::model::{ErrorData, PaginatedRequestParams};

use super::audience::Change;
use crate::tool::{Spec, Toolbox, Verdict};

/// Tools of one page. Many clients read the first page only.
const PAGE: usize = 1000;

/// All of it, or one skill, whose tools and prompts then have the names they were given there.
#[derive(Debug, Clone, Default)]
pub(super) struct View(Option<String>);

impl View {
    pub(super) fn new(skill: Option<String>) -> Self {
        Self(skill)
    }

    /// What a client may call, by the name it calls it by: all but what the policy denies.
    pub(super) fn tools<'a>(
        &'a self,
        toolbox: &'a Toolbox,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Spec>)> {
        toolbox.specs().filter_map(|spec| match toolbox.verdict(&spec.name) {
            Some(Verdict::Deny(_)) | None => None,
            Some(_) if self.0.is_some() => Some((self.own(spec)?, spec)),
            Some(_) => Some((toolbox.wire(&spec.name)?, spec)),
        })
    }

    pub(super) fn prompts<'a>(
        &'a self,
        toolbox: &'a Toolbox,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Spec>)> {
        toolbox.prompts().filter_map(|spec| Some((self.own(spec)?, spec)))
    }

    pub(super) fn resources<'a>(
        &'a self,
        toolbox: &'a Toolbox,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Spec>)> {
        toolbox.resources().filter_map(|spec| Some((self.own(spec)?, spec)))
    }

    /// The tool that a client calls by this name.
    pub(super) fn tool<'a>(&self, toolbox: &'a Toolbox, name: &str) -> Option<&'a Arc<Spec>> {
        match &self.0 {
            Some(skill) => toolbox.find(&format!("{skill}.{name}")),
            None => toolbox.find(name),
        }
    }

    pub(super) fn prompt<'a>(&self, toolbox: &'a Toolbox, name: &str) -> Option<&'a Arc<Spec>> {
        toolbox.prompts().find(|spec| self.own(spec) == Some(name))
    }

    /// The document of this URI.
    pub(super) fn resource<'a>(&self, toolbox: &'a Toolbox, uri: &str) -> Option<&'a Arc<Spec>> {
        toolbox.resource(uri).filter(|spec| self.own(spec).is_some())
    }

    /// What is listed at one moment.
    pub(super) fn lists(&self, toolbox: Option<&Toolbox>) -> Lists {
        let Some(toolbox) = toolbox else { return Lists::default() };
        Lists {
            tools: self.tools(toolbox).map(|(_, spec)| spec.clone()).collect(),
            prompts: self.prompts(toolbox).map(|(_, spec)| spec.clone()).collect(),
            resources: self.resources(toolbox).map(|(_, spec)| spec.clone()).collect(),
        }
    }

    /// The name of something among its like; `None` if it is not shown.
    fn own<'a>(&self, spec: &'a Spec) -> Option<&'a str> {
        let Some(skill) = &self.0 else { return Some(&spec.name) };
        // What a skill's folder says is called `skill/NAME`, and `skill/NAME/FILE`.
        match spec.name.strip_prefix("skill/") {
            Some(place) => (place.split('/').next() == Some(skill)).then_some(&spec.name),
            None => spec.name.strip_prefix(skill.as_str())?.strip_prefix('.'),
        }
    }
}

/// What is listed at one moment.
#[derive(Default)]
pub(super) struct Lists {
    tools: Vec<Arc<Spec>>,
    prompts: Vec<Arc<Spec>>,
    resources: Vec<Arc<Spec>>,
}

impl Lists {
    /// Which lists are other ones.
    pub(super) fn differ(&self, other: &Self) -> Vec<Change> {
        let changes = [
            (self.tools != other.tools, Change::Tools),
            (self.prompts != other.prompts, Change::Prompts),
            (self.resources != other.resources, Change::Resources),
        ];
        changes.into_iter().filter_map(|(differs, change)| differs.then_some(change)).collect()
    }
}

/// The page that begins after the name in a cursor, and the cursor of the next one.
pub(super) fn page<T>(
    mut all: Vec<(&str, T)>,
    request: Option<PaginatedRequestParams>,
) -> Result<(Vec<T>, Option<String>), ErrorData> {
    all.sort_by_key(|(name, _)| *name);
    // A name, so that it means the same when the list has changed in between.
    let cursor = request.and_then(|request| request.cursor);
    let start = match cursor.as_deref().map(|cursor| cursor.strip_prefix("after:")) {
        Some(None) => return Err(ErrorData::invalid_params("the cursor is none of this server's", None)),
        Some(Some(after)) => all.partition_point(|(name, _)| *name <= after),
        None => 0,
    };
    let rest = all.split_off(start);
    let is_last = rest.len() <= PAGE;
    let shown: Vec<_> = rest.into_iter().take(PAGE).collect();
    let next = shown.last().filter(|_| !is_last).map(|(name, _)| format!("after:{name}"));
    Ok((shown.into_iter().map(|(_, item)| item).collect(), next))
}
