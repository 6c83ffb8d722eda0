//! The map of the tests: one program, one file per subject.

/// What the tests stand on: a real PostgreSQL, processes that are killed, a model vendor.
mod support;

/// Signing in to servers that want to know who calls them.
mod accounts;
/// The agent of an editor, over ACP: the official client, and raw lines.
mod acp;
/// A client of editors' agents that others wrote, against the real program.
mod acpx;
/// What servers of others ask for while they work: the person, the model, the folders.
mod asked;
/// What may be used of models: by a conversation, in a turn, in a day, and what is said once it is.
mod budget;
/// The program as a person has it: arguments, streams, exit codes, help and messages.
mod cli;
/// Every way a question can end: its exit code, and its last line of JSON.
mod codes;
/// Conversations that outgrow the model: what is told in short, and that nothing is lost.
mod compact;
/// What users of other agents complain about in their editors.
mod complaints;
/// Settings: layers, errors with their line, what a project may not say, the reference page.
mod config;
/// The official conformance suite of MCP, run as it is published.
mod conformance;
/// The official conformance suite against the client.
mod conformance_client;
/// What the gateway says of itself: what can be asked, the numbers, the traces, one id for all of it.
mod described;
/// The one file: no Python on the machine, many starts at once, kills, full disks, and what changed meanwhile.
mod dist;
/// Pages made from the program are current.
mod docs;
/// Encoders on this machine: what they say, how they are installed, what the memory does with them.
mod encoder;
/// Skills with packages: what they declare, how they are installed, removed, and kept apart.
mod environment;
/// Extensions of skills: what serves, building them, what they do in workers.
mod extensions;
/// Tools that are found by what they are for, where there are too many to show them all.
mod find;
/// Imports go down, and every fenced dependency stays in its room.
mod floors;
/// The HTTP door: answers, refusals, limits, who is let in, and how it stops.
mod gateway;
/// Who must not come in at the HTTP door, and what no client would send.
mod intruders;
/// Jobs: on time, once, whoever is killed, and what becomes of their results.
mod jobs;
/// Python inside: what tools are given and give back, how they fail, block and are stopped.
mod kernel;
/// Models: dialects, misbehaving servers, retries and fallbacks, detection.
mod llm;
/// Mail of chat networks in the database: nothing twice, nothing lost, who may talk.
mod mail;
/// The Model Context Protocol, by raw lines and by clients that others wrote.
mod mcp;
/// What was learned from turns: its worth, its recall, and that nothing is lost, doubled or leaked.
mod memory;
/// What a tool asks for while it runs: other tools, the person, the model.
mod nested;
/// What skills offer besides tools: documents and prompts.
mod offers;
/// No model at all: which words find which tool, and how its parameters are filled.
mod offline;
/// Servers that others wrote: list, call, error, other tools, the end.
mod peers;
/// Skills that are edited while they are used: versions, broken edits, who hears of it.
mod reload;
/// Turns that survive: runs, their events, keys, kills, and two gateways on one database.
mod runs;
/// When something is due: words, cron patterns, and what clocks on walls do in spring and autumn.
mod schedule;
/// Programs that were written for OpenAI: the SDKs that people have, and the published types.
mod sdks;
/// Servers of others: their tools, everything that goes wrong with them, and the files they are in.
mod servers;
/// Units of systemd: what is written, and that systemd takes it.
mod service;
/// The log of a conversation, its repair, and what of it fits into a window.
mod session;
/// From nothing to a model that answers, and to the editors there are.
mod setup;
/// What shells complete, and manual pages.
mod shells;
/// Skill folders: what is read of them, what is wrong with them, trust, the index.
mod skill;
/// Omni between pipes: messages as lines, and events as JSON lines both ways.
mod stdio;
/// The database: opening, migrating, leases, and what happens when it cannot do its work.
mod store;
/// Calls that a server of others makes tasks: how they are looked after.
mod tasks;
/// Telegram: stories, everything that goes wrong with it, kills, limits, and how texts are shown.
mod telegram;
/// The chat at a real terminal: what is typed, and what the screen shows.
mod terminal;
/// The toolbox: schemas, policy, time limits, long results.
mod tool;
/// One turn as a state machine: limits, circles, and that it always ends.
mod turn;
/// Whole turns through the real program: dialects, misbehaving models, kills.
mod turns;
/// A newer program in the place of this one: what is taken, and all that is not.
mod update;
/// Tools in processes of their own: how they are stopped, and what they are kept from.
mod worker;
