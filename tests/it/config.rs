//! Settings: layers, errors with their line, what a project may not say, the reference page.

use std::path::PathBuf;

use omni::config::{Config, ConfigError, DEFAULTS, Loaded, Origin, Paths, Secret, load, reference, show};
use tempfile::TempDir;
use toml::{Table, Value};

/// A user and a project, each with a folder for settings.
struct World {
    folder: TempDir,
    variables: Vec<(String, String)>,
    flags: Vec<(String, Value)>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Self { folder, variables: Vec::new(), flags: Vec::new() };
        std::fs::create_dir_all(world.paths().config).unwrap();
        std::fs::create_dir_all(world.paths().project()).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn paths(&self) -> Paths {
        Paths {
            config: self.path("user"),
            data: self.path("data"),
            state: self.path("state"),
            cache: self.path("cache"),
            workspace: self.path("work"),
        }
    }

    fn user(self, text: &str) -> Self {
        std::fs::write(self.path("user/config.toml"), text).unwrap();
        self
    }

    fn project(self, text: &str) -> Self {
        std::fs::write(self.path("work/.omni/config.toml"), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    fn try_load(&self) -> Result<Loaded, ConfigError> {
        load(&self.paths(), self.variables.clone(), self.flags.clone())
    }

    fn load(&self) -> Loaded {
        self.try_load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The error, with the world's folder left out.
    fn error(&self) -> String {
        let error = self.try_load().expect_err("something is wrong here").to_string();
        error.replace(&self.folder.path().display().to_string(), "")
    }
}

fn keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (section, values) in table {
        keys.extend(values.as_table().unwrap().keys().map(|key| format!("{section}.{key}")));
    }
    keys.sort();
    keys
}

#[test]
fn the_defaults_have_exactly_the_keys_of_the_types() {
    let defaults: Table = DEFAULTS.parse().unwrap();
    let typed = Table::try_from(Config::default()).unwrap();
    assert_eq!(keys(&defaults), keys(&typed));
    assert_eq!(defaults.keys().collect::<Vec<_>>(), typed.keys().collect::<Vec<_>>());
    for key in keys(&defaults) {
        let (section, name) = key.split_once('.').unwrap();
        let mut without = defaults.clone();
        without[section].as_table_mut().unwrap().remove(name);
        assert!(without.try_into::<Config>().is_err(), "`{key}` has a second default in the code");
    }
}

#[test]
fn nothing_is_configured() {
    let loaded = World::new().load();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.origins.values().all(|origin| *origin == Origin::Default));
}

#[test]
fn later_layers_win_and_each_key_knows_its_origin() {
    let file = "[model]\nname = 'a'\nretries = 1\nwindow = 1\nmax_output = 1\n\n[limits]\nrounds = 1\n";
    let world = World::new()
        .user(file)
        .project("[model]\nretries = 2\nwindow = 2\nmax_output = 2\n")
        .variable("OMNI_MODEL__WINDOW", "3")
        .variable("OMNI_MODEL__MAX_OUTPUT", "3")
        .flag("model.max_output", 4);
    let Loaded { config, origins } = world.load();
    let model = config.model;
    assert_eq!((model.name.as_str(), model.retries, model.window, model.max_output), ("a", 2, 3, 4));
    let file = |name: &str, line| Origin::File { path: world.path(name), line };
    let expected = [
        ("model.name", file("user/config.toml", 2)),
        ("limits.rounds", file("user/config.toml", 8)),
        ("model.retries", file("work/.omni/config.toml", 2)),
        ("model.window", Origin::Environment("OMNI_MODEL__WINDOW".into())),
        ("model.max_output", Origin::Flag),
        ("log.level", Origin::Default),
    ];
    for (key, origin) in expected {
        assert_eq!(origins[key], origin, "{key}");
    }
}

#[test]
fn every_way_to_write_a_table_is_the_same() {
    for text in ["model.name = 'x'\n", "model = { name = 'x' }\n", "[model]\nname = 'x'\n"] {
        assert_eq!(World::new().user(text).load().config.model.name, "x", "{text}");
    }
    let lab = World::new().user("[provider.\"my lab\"]\nkind = 'openai'\n").load();
    assert_eq!(lab.config.provider["my lab"].kind, "openai");
}

#[test]
fn values_in_the_environment_have_the_type_of_their_setting() {
    let world = World::new()
        .variable("OMNI_MODEL__NAME", "4711")
        .variable("OMNI_LOG__LEVEL", "\"debug\"")
        .variable("OMNI_LIMITS__SECONDS", "60")
        .variable("OMNI_POLICY__DENY", "[\"fs.*\"]")
        .variable("OMNI_STORE__URL", "postgres://ann@host/db?x=[1]")
        .variable("OMNI_PROVIDER__LAB__API_KEY", "env:LAB_KEY")
        .variable("OMNI_MODEL__RETRIES", "");
    let config = world.load().config;
    assert_eq!(config.model.name, "4711");
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.limits.seconds, 60.0);
    assert_eq!(config.policy.deny, ["fs.*"]);
    assert_eq!(config.store.url, Secret::new("postgres://ann@host/db?x=[1]"));
    assert_eq!(config.provider["lab"].api_key, Some(Secret::new("env:LAB_KEY")));
    assert_eq!(config.model.retries, Config::default().model.retries);
}

#[test]
fn older_names_of_settings_are_understood() {
    let world = World::new()
        .user("[mcp]\ntimeout = 5\n")
        .variable("OMNI_MCP__IDLE_TIMEOUT", "7")
        .flag("mcp.timeout", 6.0);
    let loaded = world.load();
    assert_eq!((loaded.config.tools.timeout, loaded.config.tools.idle_timeout), (6.0, 7.0));
    assert_eq!(loaded.origins["tools.idle_timeout"], Origin::Environment("OMNI_MCP__IDLE_TIMEOUT".into()));
    assert_eq!(loaded.origins["tools.timeout"], Origin::Flag);
    let wrong = World::new().user("[mcp]\ntimeout = 'x'\n").error();
    assert!(wrong.contains("line 2: `tools.timeout` must be a number"), "{wrong}");
}

#[test]
fn what_a_skill_is_set_to_is_anything_under_its_name() {
    let loaded = World::new()
        .user("[skill.weather]\nunit = 'F'\ncities = [{ name = 'Oslo' }]\n[skill.weather.limits]\ndays = 3\n")
        .variable("OMNI_SKILL__WEATHER__RETRIES", "2")
        .variable("OMNI_SKILL__WEATHER__KEY", "env:WEATHER")
        .load();
    let weather = &loaded.config.skill["weather"];
    let reveal = |key: &str| weather[key].reveal().unwrap();
    assert_eq!((reveal("unit"), reveal("retries")), ("F".into(), 2.into()));
    assert_eq!(reveal("cities").to_string(), r#"[{"name":"Oslo"}]"#);
    assert_eq!(reveal("limits").to_string(), r#"{"days":3}"#);
    assert!(weather["key"].reveal().unwrap_err().to_string().contains("`WEATHER`"));
    assert!(matches!(&loaded.origins["skill.weather.unit"], Origin::File { line: 2, .. }));
    let shown = show(&loaded, false);
    assert!(shown.contains("[skill.weather]") && shown.contains("unit = \"****\""), "{shown}");
    assert!(shown.contains("key = \"env:WEATHER\"") && !format!("{loaded:?}").contains("Oslo"), "{shown}");
    assert!(World::new().user("[skill]\nweather = 3\n").error().contains("must be a table"));
}

#[test]
fn variables_of_others_are_left_alone() {
    let world =
        World::new().variable("OMNI_HOME", "/x").variable("OMNI_KIT_PATH", "/y").variable("PATH", "/z");
    assert_eq!(world.load().config, Config::default());
}

#[test]
fn mistakes_are_named_with_their_place_and_what_was_meant() {
    let user = |text: &str| World::new().user(text).error();
    assert_eq!(
        user("# mine\n[limits]\nronds = 3\n"),
        "`/user/config.toml`, line 3: there is no setting `limits.ronds`; did you mean `limits.rounds`?"
    );
    assert_eq!(
        user("[modle]\n"),
        "`/user/config.toml`, line 1: there is no setting `modle`; did you mean `model`?"
    );
    assert_eq!(
        user("rounds = 3\n"),
        "`/user/config.toml`, line 1: there is no setting `rounds`; did you mean `limits.rounds`?"
    );
    assert_eq!(
        user("[provider.lab]\nbase-url = ''\n"),
        "`/user/config.toml`, line 2: there is no setting `provider.lab.base-url`; \
         did you mean `provider.lab.base_url`?"
    );
    assert_eq!(user("[model]\nqqq = 1\n"), "`/user/config.toml`, line 2: there is no setting `model.qqq`");
    assert_eq!(
        user("\n[limits]\nrounds = \"many\"\n"),
        "`/user/config.toml`, line 3: `limits.rounds` must be a whole number, but it is a text in quotes"
    );
    assert_eq!(
        user("[limits]\nrounds = -1\n"),
        "`/user/config.toml`, line 2: `limits.rounds` must be 0 or more, but it is negative"
    );
    assert_eq!(
        user("[limits]\nrounds = 4294967296\n"),
        "`/user/config.toml`, line 2: `limits.rounds` must be a smaller number, but it is too large"
    );
    assert_eq!(
        user("[tools]\ntimeout = nan\n"),
        "`/user/config.toml`, line 2: `tools.timeout` must be a number from 0 to 1000000000, but it is another"
    );
    assert_eq!(
        user("[telegram]\npatience = 100000\n"),
        "`/user/config.toml`, line 2: `telegram.patience` must be a number of seconds from 1 to 86400, which is a day, \
         but it is another"
    );
    assert_eq!(
        user("[policy]\nask = ['a', 1]\n"),
        "`/user/config.toml`, line 2: `policy.ask` must be a list of texts in quotes, \
         but it is a list with something else"
    );
    assert_eq!(
        user("model = 'x'\n"),
        "`/user/config.toml`, line 1: `model` must be a table, but it is a text in quotes"
    );
    assert_eq!(
        user("[[model]]\nname = 'x'\n"),
        "`/user/config.toml`, line 1: `model` must be a table, but it is a list"
    );
    let syntax = user("[model]\nname = 'a'\nwindow = = 3\n");
    assert!(syntax.starts_with("`/user/config.toml`, line 3: this is no TOML: "), "{syntax}");
    assert_eq!(
        World::new().variable("OMNI_LIMITS__ROUND", "3").error(),
        "environment variable `OMNI_LIMITS__ROUND`: there is no setting `limits.round`; \
         did you mean `limits.rounds`?"
    );
    assert_eq!(
        World::new().variable("OMNI_MODEL_NAME", "x").error(),
        "environment variable `OMNI_MODEL_NAME`: there is no setting `OMNI_MODEL_NAME`; \
         did you mean `OMNI_MODEL__NAME`?"
    );
    assert_eq!(
        World::new().flag("limits.rounds", "x").error(),
        "command line: `limits.rounds` must be a whole number, but it is a text in quotes"
    );
    assert_eq!(
        World::new().flag("limit", 3).error(),
        "command line: there is no setting `limit`; did you mean `limits`?"
    );
}

#[test]
fn a_mistake_never_shows_the_value() {
    let error = World::new().user("[provider.lab]\napi_key = ['sk-secret']\n").error();
    assert!(!error.contains("sk-secret"), "{error}");
}

#[test]
fn files_that_cannot_be_read() {
    let world = World::new();
    std::fs::create_dir(world.path("user/config.toml")).unwrap();
    assert_eq!(world.error(), "cannot read the settings in `/user/config.toml`: it is no file");

    let world = World::new();
    std::os::unix::fs::symlink("/dev/zero", world.path("work/.omni/config.toml")).unwrap();
    assert_eq!(world.error(), "cannot read the settings in `/work/.omni/config.toml`: it is no file");

    let world = World::new().user(&"# long\n".repeat(200_000));
    assert_eq!(world.error(), "cannot read the settings in `/user/config.toml`: it is larger than 1 MiB");

    let world = World::new();
    std::fs::write(world.path("user/config.toml"), b"[model]\nname = '\xff'\n").unwrap();
    assert!(matches!(world.try_load(), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn relative_paths_start_at_their_file() {
    let world = World::new()
        .user(
            "[skills]\nfolders = ['mine', '/abs', '~/skills']\n[store]\nurl = 'sqlite:x.db'\n\
             [provider.a]\napi_key = 'file:key'\n[model]\nname = 'scripted:s.json'\nfallback = ['lab/x']\n",
        )
        .variable("HOME", "/home/ann");
    let config = world.load().config;
    assert_eq!(config.skills.folders, [world.path("user/mine"), "/abs".into(), "/home/ann/skills".into()]);
    assert_eq!(config.store.url, Secret::new(format!("sqlite:{}", world.path("user/x.db").display())));
    let key = Secret::new(format!("file:{}", world.path("user/key").display()));
    assert_eq!(config.provider["a"].api_key, Some(key));
    assert_eq!(config.model.name, format!("scripted:{}", world.path("user/s.json").display()));
    assert_eq!(config.model.fallback, ["lab/x"]);

    let config = World::new().flag("store.url", "sqlite:x.db").load().config;
    assert_eq!(config.store.url, Secret::new("sqlite:x.db"));
}

#[test]
fn a_project_may_not_grant_itself_anything() {
    let project = |text: &str| World::new().project(text).error();
    assert_eq!(
        project("[policy]\nallow = ['*']\n"),
        "`/work/.omni/config.toml`, line 2: a project may not set `policy.allow`, because it could let itself do \
         anything; if you want it, put it into your own file, `/user/config.toml`"
    );
    for text in [
        "[provider.openai]\nbase_url = 'http://evil'\n",
        "provider.openai.api_key = 'env:OTHER_KEY'\n",
        "store = { url = 'postgres://evil/x' }\n",
        "[model]\nname = 'scripted:evil.json'\n",
        "[model]\nfallback = ['offline', 'scripted:evil.json']\n",
        "[skill.fs]\nlimit = 0\n",
        "[skills]\nfolders = ['/tmp']\n",
        "[skills]\nfolders = ['../../user']\n",
        "[skills]\nfolders = ['..', '~/x']\n",
    ] {
        let world = World::new().project(text).variable("HOME", "/home/ann");
        assert!(matches!(world.try_load(), Err(ConfigError::Refused { .. })), "{text}");
        let flagged = World::new().user(text);
        assert!(flagged.try_load().is_ok(), "{text}");
    }
}

#[test]
fn a_link_out_of_the_project_is_outside() {
    let world = World::new().project("[skills]\nfolders = ['link/skills']\n");
    std::fs::create_dir_all(world.path("elsewhere/skills")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), world.path("work/.omni/link")).unwrap();
    assert!(matches!(world.try_load(), Err(ConfigError::Refused { .. })));
}

#[test]
fn a_project_that_is_reached_by_a_link_may_name_its_own_folders() {
    let world = World::new().project("[skills]\nfolders = ['../tools', 'new']\n");
    std::fs::create_dir(world.path("work/tools")).unwrap();
    std::os::unix::fs::symlink(world.path("work"), world.path("alias")).unwrap();
    let paths = Paths { workspace: world.path("alias"), ..world.paths() };
    let folders = load(&paths, [], Vec::new()).unwrap().config.skills.folders;
    assert_eq!(folders, [world.path("alias/.omni/../tools"), world.path("alias/.omni/new")]);
}

#[test]
fn a_projects_lists_are_added_to_the_users() {
    let world = World::new()
        .user(
            "[policy]\ndeny = ['shell.*']\nask = ['git.*']\n[skills]\ndisabled = ['x']\nfolders = ['mine']\n",
        )
        .project(
            "[policy]\ndeny = []\nask = ['fs.*', 'git.*']\n[skills]\ndisabled = ['y']\nfolders = ['own']\n",
        );
    let config = world.load().config;
    assert_eq!(config.policy.deny, ["shell.*"]);
    assert_eq!(config.policy.ask, ["git.*", "fs.*"]);
    assert_eq!(config.skills.disabled, ["x", "y"]);
    assert_eq!(config.skills.folders, [world.path("user/mine"), world.path("work/.omni/own")]);

    let config =
        World::new().user("[policy]\ndeny = ['a']\n").variable("OMNI_POLICY__DENY", "[]").load().config;
    assert_eq!(config.policy.deny, [] as [&str; 0], "the environment is the user's own");
}

#[test]
fn what_is_shown_is_toml_without_secrets() {
    let world = World::new()
        .user("[provider.'my lab']\napi_key = 'sk-secret'\nbase_url = 'http://x'\n[model]\nname = \"a \\\" b\"\n[skill.weather]\nkey = 'sk-secret'\n")
        .variable("OMNI_PROVIDER__OTHER__API_KEY", "env:OTHER_KEY")
        .variable("OMNI_STORE__URL", "postgres://ann:pw@host/db");
    let loaded = world.load();
    let (plain, with_origin) = (show(&loaded, false), show(&loaded, true));
    assert_eq!(plain.parse::<Table>().unwrap(), with_origin.parse::<Table>().unwrap());
    assert_eq!(plain.parse::<Table>().unwrap(), Table::try_from(&loaded.config).unwrap());
    for secret in ["sk-secret", "pw"] {
        assert!(!with_origin.contains(secret) && !plain.contains(secret), "{plain}");
    }
    let file = world.path("user/config.toml");
    let file = file.display();
    for line in [
        "[provider.\"my lab\"]",
        &format!("api_key = \"****\"  # from `{file}`, line 2"),
        "api_key = \"env:OTHER_KEY\"  # from environment variable `OMNI_PROVIDER__OTHER__API_KEY`",
        "retries = 3  # from default",
    ] {
        assert!(with_origin.lines().any(|other| other == line), "{line}\n{with_origin}");
    }
    assert!(!plain.contains('#'), "{plain}");
    let order = |text: &str| plain.find(text).unwrap();
    assert!(order("[model]") < order("[provider.") && order("[provider.") < order("[limits]"));
}

#[test]
fn the_workspace_is_where_a_project_begins() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("repo/src/deep");
    std::fs::create_dir_all(&inner).unwrap();
    let workspace = || Paths::find(&inner).unwrap().workspace;
    assert_eq!(workspace(), inner);
    std::fs::write(folder.path().join("repo/.git"), "gitdir: elsewhere").unwrap();
    assert_eq!(workspace(), folder.path().join("repo"));
    std::fs::create_dir(folder.path().join("repo/src/.omni")).unwrap();
    assert_eq!(workspace(), folder.path().join("repo/src"));
}

#[test]
fn a_secret_is_read_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "s3cret\n").unwrap();
    let from_file = Secret::new(format!("file:{}", file.display()));
    assert_eq!(from_file.reveal().unwrap(), "s3cret");
    assert_eq!(Secret::new("plain").reveal().unwrap(), "plain");
    assert_eq!(format!("{:?}", Secret::new("plain")), "Secret(****)");
    assert_eq!(Secret::new("sqlite:x.db").to_string(), "sqlite:x.db");
    let missing = Secret::new("env:OMNI_TEST_THAT_IS_NOT_SET").reveal().unwrap_err().to_string();
    assert!(missing.contains("`OMNI_TEST_THAT_IS_NOT_SET`"), "{missing}");
}

#[test]
fn the_reference_page_has_every_key() {
    let page = reference();
    for key in keys(&DEFAULTS.parse().unwrap()) {
        assert!(page.contains(&format!("\n### `{key}`\n")), "{key}");
    }
}
