//! What of the toolbox a server shows, and under which names.

use std::sync::Arc;

use crate::tool::{Spec, Toolbox, Verdict};

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
