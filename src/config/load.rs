//! Merges the layers into a [`Config`].

use std::path::{Path, PathBuf};

use config::FileFormat;
use serde_json::Value;

use super::admin::AdminConfig;
use super::cases::TestConfig;
use super::consumer::ConsumerConfig;
use super::daemon::{Config, LogConfig};
use super::env::{Env, Overlay};
use super::error::ConfigError;
use super::keys::RootKeys;
use super::replacing::sha256;
use super::schema::Tree;
use super::secrets::Places;
use super::shape::{lost_variables, mend_brackets};
use super::text::{self, Lines};
use super::traces::TracesConfig;
use super::validate::check_together;
use super::watch::WatchConfig;
use crate::otlp;
use crate::settings::read::{nearest, typed};
use crate::settings::{BrokerConfig, BrokerKeys, Problem};

/// Default folder for the daemon's state.
const STATE_DIR: &str = "rillway-state";

/// Variable in which systemd passes the unit's state folder (`StateDirectory=`).
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

impl Config {
    /// What an operator should know about the export of traces.
    pub fn traces_concerns(&self) -> impl Iterator<Item = &String> {
        self.traces.iter().flat_map(|traces| &traces.concerns).chain(&self.traces_ignored)
    }

    /// Reads and checks the whole configuration: the file, if one is given, overridden by the
    /// environment.
    pub fn load(path: Option<&Path>, env: &Env) -> Result<Config, ConfigError> {
        Config::of(Layers::read(path, env)?, None)
    }

    /// The same, to replace a configuration that is in use: a key that cannot change while the daemon runs
    /// is reported as a problem.
    pub fn load_anew(
        path: Option<&Path>,
        env: &Env,
        running: &Config,
    ) -> Result<Config, ConfigError> {
        Config::of(Layers::read(path, env)?, Some(running))
    }

    /// The same, of the bytes of a file at this path.
    pub(super) fn parse(path: &Path, bytes: Vec<u8>, env: &Env) -> Result<Config, ConfigError> {
        Config::of(Layers::of(Some(path), text::parse(path, bytes)?, env)?, None)
    }

    fn of(
        (layers, mut value): (Layers<'_>, Value),
        running: Option<&Config>,
    ) -> Result<Config, ConfigError> {
        let (keys, mut problems) = layers.keys(&mut value);
        let lost = lost_variables(layers.env, &layers.tree);
        problems.extend(lost.into_iter().map(|lost| lost.problem));
        let config = keys.and_then(|keys| layers.config(keys, &value, &mut problems));
        if let (Some(config), Some(running)) = (&config, running) {
            problems.append(&mut config.fixed_keys_that_differ(running));
        }
        layers.outcome(config, problems, &value)
    }

    /// Reads `[broker]` alone, for commands that need no consumer. The rest is not checked.
    pub fn load_broker(path: Option<&Path>, env: &Env) -> Result<BrokerConfig, ConfigError> {
        let (layers, mut value) = Layers::read(path, env)?;
        if let Some(table) = value.as_object_mut() {
            table.retain(|key, _| key == "broker");
        }
        let (keys, mut problems) = layers.keys(&mut value);
        let lost = lost_variables(env, &layers.tree).into_iter();
        let of_broker = lost.filter(|lost| lost.variable.starts_with("RILLWAY_BROKER_"));
        problems.extend(of_broker.map(|lost| lost.problem));
        let broker = keys.and_then(|keys| layers.broker(keys.broker, &mut problems));
        layers.outcome(broker, problems, &value)
    }
}

impl Config {
    /// Reads `[admin]` alone, for commands that ask a running daemon. The rest is not checked: it may be what
    /// the daemon is asked about.
    pub fn load_admin(path: Option<&Path>, env: &Env) -> Result<AdminConfig, ConfigError> {
        let (layers, mut value) = Layers::read(path, env)?;
        if let Some(table) = value.as_object_mut() {
            table.retain(|key, _| key == "admin");
        }
        let (keys, mut problems) = layers.keys(&mut value);
        let admin = keys.map(|keys| layers.admin(keys.admin, &value, &mut problems));
        layers.outcome(admin, problems, &value)
    }
}

/// The layers of the configuration.
struct Layers<'a> {
    path: Option<&'a Path>,
    env: &'a Env,
    overlay: Overlay,
    tree: Tree,
    lines: Lines,
    /// Of the file's content.
    sha256: String,
}

impl<'a> Layers<'a> {
    /// The layers, and the merged tree.
    fn read(path: Option<&'a Path>, env: &'a Env) -> Result<(Layers<'a>, Value), ConfigError> {
        Layers::of(path, path.map(text::read).transpose()?.unwrap_or_default(), env)
    }

    /// The same, of a file's text. An empty one is as good as none.
    fn of(
        path: Option<&'a Path>,
        (text, lines): (String, Lines),
        env: &'a Env,
    ) -> Result<(Layers<'a>, Value), ConfigError> {
        let tree = Tree::of::<RootKeys>();
        let overlay = Overlay::new(env, &tree);
        let file = config::File::from_str(&text, FileFormat::Toml);
        let builder = config::Config::builder().add_source(file);
        let built = builder.add_source(overlay.clone()).build();
        let sha256 = sha256(text.as_bytes());
        let layers = Layers { path, env, overlay, tree, lines, sha256 };
        match built.and_then(|merged| merged.try_deserialize()) {
            Ok(value) => Ok((layers, value)),
            Err(error) => Err(unmerged(path, &error)),
        }
    }

    fn folder(&self) -> &Path {
        self.path.and_then(Path::parent).unwrap_or(Path::new(""))
    }

    fn places(&self) -> Places<'_> {
        Places { env: self.env, folder: self.folder() }
    }

    /// Reads the keys into their types. Unknown or unreadable ones are removed and reported.
    fn keys(&self, value: &mut Value) -> (Option<RootKeys>, Vec<Problem>) {
        let mut problems = mend_brackets(value, &self.tree);
        problems.append(&mut self.tree.take_unknown_keys(value));
        for problem in &mut problems {
            problem.variable = self.overlay.variable_of(&problem.path, true).map(str::to_owned);
        }
        let places = self.places();
        let mut typed_value = value.clone();
        self.tree.each_secret(&mut typed_value, &mut |at, value| {
            if let Err(message) = places.resolve(value) {
                problems.push(Problem::new(at, message));
                // A placeholder, so that the same value is not reported twice.
                *value = Value::String("unreadable".to_owned());
            }
        });
        match typed(typed_value, "") {
            Ok(keys) => (Some(keys), problems),
            Err(problem) => {
                problems.push(problem);
                (None, problems)
            }
        }
    }

    fn broker(&self, keys: BrokerKeys, problems: &mut Vec<Problem>) -> Option<BrokerConfig> {
        // An unreadable secret would be reported a second time, as a bad URI.
        let readable = !problems.iter().any(|p| p.path.starts_with("broker."));
        let mut found = Vec::new();
        let broker = BrokerConfig::from_keys(keys, "broker", self.folder(), &mut found);
        if readable {
            problems.append(&mut found);
        }
        broker
    }

    fn config(&self, keys: RootKeys, value: &Value, problems: &mut Vec<Problem>) -> Option<Config> {
        let broker = self.broker(keys.broker, problems);
        if keys.shutdown_grace.0.is_zero() {
            problems.push(Problem::new("shutdown_grace", "0s is out of range: expected more"));
        }
        let roots = self.tree.keys_below(&[]);
        let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
        let misspelt = |p: &Problem| {
            p.is_unknown_key
                && nearest(&p.path, &roots).is_some_and(|key| ["consumer", "watch"].contains(&key))
        };
        if keys.consumer.is_empty() && keys.watch.is_empty() && !problems.iter().any(misspelt) {
            problems.push(Problem::new(
                "consumer",
                "no consumer is configured: expected at least one [[consumer]], or a [[watch]]",
            ));
        }
        let mut consumers = Vec::new();
        let configured = keys.consumer.len();
        for (i, value) in keys.consumer.into_iter().enumerate() {
            let at = format!("consumer[{i}]");
            if let Some(consumer) = ConsumerConfig::from_value(value, &at, self.folder(), problems)
            {
                consumers.push((at, consumer));
            }
        }
        problems.append(&mut check_together(&consumers, broker.as_ref()));
        let watches = WatchConfig::all(keys.watch, broker.as_ref(), problems);
        let all_were_read = consumers.len() == configured;
        let tests = TestConfig::all(keys.test, &consumers, all_were_read, problems);
        let admin = self.admin(keys.admin, value, problems);
        let mut traces_ignored = Vec::new();
        let (env, folder) = (self.env, self.folder());
        let traces = TracesConfig::new(
            otlp::IS_BUILT,
            keys.traces,
            env,
            folder,
            problems,
            &mut traces_ignored,
        );
        let directives = ["RILLWAY_LOG", "RUST_LOG"]
            .into_iter()
            .filter_map(|name| self.env.get(name))
            .find(|text| !text.is_empty());
        Some(Config {
            path: self.path.map(Path::to_owned),
            sha256: self.sha256.clone(),
            broker: broker?,
            admin,
            log: LogConfig { directives: directives.map(str::to_owned), ..keys.log },
            traces,
            traces_ignored,
            state_dir: self.state_dir(keys.state_dir),
            shutdown_grace: keys.shutdown_grace,
            consumers: consumers.into_iter().map(|(_, consumer)| consumer).collect(),
            watches,
            tests,
        })
    }

    fn admin(&self, keys: AdminConfig, value: &Value, problems: &mut Vec<Problem>) -> AdminConfig {
        let token = value.pointer("/admin/token");
        let token_file = token.and_then(|token| self.places().file_of(token));
        keys.finish(self.folder(), token_file, problems)
    }

    fn state_dir(&self, given: Option<PathBuf>) -> PathBuf {
        // systemd separates several state directories by colons; the first is the unit's own.
        let systemd = || {
            let first = self.env.get(STATE_DIRECTORY)?.split(':').next()?;
            (!first.is_empty()).then(|| PathBuf::from(first))
        };
        let dir = given.or_else(systemd).unwrap_or_else(|| PathBuf::from(STATE_DIR));
        self.folder().join(dir)
    }

    /// Adds the source of each problem: line, variable, consumer.
    fn outcome<T>(
        &self,
        done: Option<T>,
        mut problems: Vec<Problem>,
        value: &Value,
    ) -> Result<T, ConfigError> {
        match done {
            Some(done) if problems.is_empty() => return Ok(done),
            _ => {}
        }
        // A misspelt key is not reported as missing too.
        let misspelt: Vec<String> = problems
            .iter()
            .filter(|p| p.is_unknown_key)
            .filter_map(|p| p.path.rsplit_once('.').map(|(table, _)| table.to_owned()))
            .collect();
        problems.retain(|p| p.is_unknown_key || !misspelt.contains(&p.path));
        for problem in &mut problems {
            if problem.variable.is_none() {
                // A whole section is wrong only because of a key below it.
                let below = !problem.path.contains(['.', '[']);
                problem.variable =
                    self.overlay.variable_of(&problem.path, below).map(str::to_owned);
            }
            if problem.variable.is_none() {
                problem.line = self.lines.of(&problem.path);
            }
            problem.consumer = consumer_of(&problem.path, value);
        }
        // In the order of the file; those of the environment come first.
        problems.sort_by(|a, b| (a.line, &a.path).cmp(&(b.line, &b.path)));
        Err(ConfigError::Invalid { file: self.path.map(Path::to_owned), problems })
    }
}

/// Name of the consumer that a path like `consumer[1].batch` belongs to.
fn consumer_of(path: &str, value: &Value) -> Option<String> {
    let index: usize = path.strip_prefix("consumer[")?.split(']').next()?.parse().ok()?;
    value.get("consumer")?.get(index)?.get("name")?.as_str().map(str::to_owned)
}

/// The file was read before, so this error is about the environment.
fn unmerged(path: Option<&Path>, error: &config::ConfigError) -> ConfigError {
    let message = format!("the environment variables cannot be applied: {error}");
    let problems = vec![Problem::new("", message)];
    ConfigError::Invalid { file: path.map(Path::to_owned), problems }
}
