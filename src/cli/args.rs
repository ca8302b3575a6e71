//! The arguments of the program.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::text::argument;

/// Certified agents beside private Kubernetes clusters, and the hub they dial
#[derive(Debug, Parser)]
#[command(
    name = "sortie",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// What every subcommand understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every subcommand understands.
#[derive(Args, Debug)]
pub struct Global {
    /// Socket of the hub to administer, in its state folder
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "SOCKET",
        default_value = "/var/lib/sortie/admin.sock"
    )]
    pub hub: PathBuf,
    /// Least important level that is logged
    #[arg(long, global = true, help_heading = "Global options", value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    pub log_level: Level,
    /// How log lines are written
    #[arg(long, global = true, help_heading = "Global options", value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
    /// Whether colour is used on terminals
    #[arg(long, global = true, help_heading = "Global options", value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

/// Importance of log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Format {
    Text,
    Json,
}

/// Whether colour is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Color {
    Auto,
    Never,
}

/// The subcommands. Their doc comments are their help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a hub, an agent and a cluster at work, and audit them
    Demo(Demo),
    /// Run a hub
    Hub(Serve),
    /// Run an agent
    Agent(Agent),
    /// List what the hub knows
    Get(Get),
    /// Make or delete one-time join tokens
    Token {
        /// What to do.
        #[command(subcommand)]
        what: Token,
    },
    /// Register clusters whose `ServiceAccount` tokens prove who an agent is
    Cluster {
        /// What to do.
        #[command(subcommand)]
        what: Cluster,
    },
    /// Approve, suspend or remove accounts
    Account {
        /// What to do.
        #[command(subcommand)]
        what: Account,
    },
    /// Make users of the facade
    Client {
        /// What to do.
        #[command(subcommand)]
        what: Client,
    },
    /// Certify a client for an account, and write a kubeconfig for it
    Kubeconfig(Kubeconfig),
    /// Ban an agent or a client, and cut its connections
    Revoke(Who),
    /// End a ban
    Restore(Who),
    /// Copy the hub's state, while it runs, to a new folder on its machine
    Backup(Backup),
    /// Explain, check and migrate references to secrets
    Ref {
        /// What to do.
        #[command(subcommand)]
        what: Ref,
    },
}

/// `sortie demo`
#[derive(Args, Debug)]
pub struct Demo {
    /// Use the real cluster that kubectl would use, instead of the built-in one
    #[arg(long, conflicts_with = "kubeconfig")]
    pub live: bool,
    /// Use the real cluster of this kubeconfig
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one otherwise
    #[arg(long)]
    pub context: Option<String>,
    /// In a real cluster: plant Secrets in a namespace of their own, and look for their values
    #[arg(long)]
    pub plant: bool,
    /// End once synced and rotated twice, with an audit
    #[arg(long)]
    pub once: bool,
    /// Write the audit report to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Longest time the audit may take
    #[arg(long, value_name = "DURATION", default_value = "180s", value_parser = argument)]
    pub timeout: Duration,
}

/// `sortie agent`
#[derive(Args, Debug)]
pub struct Agent {
    /// What it has in common with a hub.
    #[command(flatten)]
    pub serve: Serve,
    /// Print the rights that the accounts need in their clusters, for `kubectl apply`, and end
    #[arg(long, conflicts_with_all = ["check", "print_config"])]
    pub print_rbac: bool,
}

/// `sortie hub`, `sortie agent`
#[derive(Args, Debug)]
pub struct Serve {
    /// The configuration, YAML
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration and what it needs, change nothing, and end
    #[arg(long)]
    pub check: bool,
    /// Print the effective configuration, without secrets, and end
    #[arg(long, conflicts_with = "check")]
    pub print_config: bool,
    /// Allow core dumps and debuggers, which can read keys and credentials
    #[arg(long)]
    pub allow_dump: bool,
}

/// `sortie get`
#[derive(Args, Debug)]
pub struct Get {
    /// What to list
    #[arg(value_enum)]
    pub what: Sort,
    /// Only this one
    pub name: Option<String>,
    /// How to write it; `wide` shows the credentials of accounts
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Go on with each row that changes, until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Wait until it has this state; all of them, if none is named
    #[arg(long, conflicts_with = "watch", value_name = "STATE")]
    pub wait: Option<String>,
    /// How long to wait
    #[arg(long, requires = "wait", value_name = "DURATION", default_value = "60s", value_parser = argument)]
    pub timeout: Duration,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Sort {
    Agents,
    Accounts,
    Clients,
    Tokens,
    Clusters,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Output {
    Table,
    Wide,
    Json,
}

/// `sortie token`
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a join string for one agent; it is a secret
    Create {
        /// The name that the agent gets
        agent: String,
        /// Account that the agent may bring without approval; repeatable
        #[arg(long = "account", value_name = "NAME")]
        accounts: Vec<String>,
        /// How long it may be used, at most 15m
        #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = argument)]
        ttl: Duration,
        /// Write it to this new file, readable by its owner only, instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Delete a token
    Delete {
        /// Its id; see `sortie get tokens`
        id: String,
    },
}

/// `sortie cluster`
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Accept a cluster's `ServiceAccount` tokens
    Add {
        /// Name for people
        name: String,
        /// Issuer of its tokens, as `kubectl get --raw /.well-known/openid-configuration` says
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// Its public keys, as `kubectl get --raw /openid/v1/jwks` prints them
        #[arg(long, value_name = "FILE")]
        jwks: PathBuf,
        /// Which account is which agent; repeatable
        #[arg(
            long,
            required = true,
            value_name = "NAMESPACE/SERVICEACCOUNT=AGENT",
            value_parser = subject_and_agent
        )]
        allow: Vec<(String, String)>,
    },
    /// Accept a cluster's tokens no longer
    Remove {
        /// Which
        name: String,
    },
}

/// `sortie account`
#[derive(Debug, Subcommand)]
pub enum Account {
    /// Serve an account that waits or is suspended
    Approve {
        /// Which
        name: String,
    },
    /// Stop serving an account
    Suspend {
        /// Which
        name: String,
    },
    /// Forget an account that no agent offers any more, with all that is stored of it
    Remove {
        /// Which
        name: String,
    },
}

/// `sortie client`
#[derive(Debug, Subcommand)]
pub enum Client {
    /// Make a client, or change which accounts it may use
    Create {
        /// Which
        name: String,
        /// Account it may use; repeatable
        #[arg(long = "account", value_name = "NAME", required = true)]
        accounts: Vec<String>,
    },
}

/// `sortie kubeconfig`
#[derive(Args, Debug)]
pub struct Kubeconfig {
    /// The account that it is for
    pub account: String,
    /// The client that it is for
    #[arg(long, value_name = "NAME")]
    pub client: String,
    /// How long it can be used; the hub's `client-ttl` otherwise
    #[arg(long, value_name = "DURATION", value_parser = argument)]
    pub ttl: Option<Duration>,
    /// Write it to this new file, readable by its owner only, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `sortie revoke`, `sortie restore`
#[derive(Args, Debug)]
pub struct Who {
    /// What it is
    #[arg(value_enum)]
    pub role: Role,
    /// Which
    pub name: String,
}

/// `sortie backup`
#[derive(Args, Debug)]
pub struct Backup {
    /// The folder to make; it holds private keys, and only its owner may enter it
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
}

/// `sortie ref`
#[derive(Debug, Subcommand)]
pub enum Ref {
    /// Show what a reference means; nothing is asked for it
    Explain {
        /// The reference, in quotes
        reference: String,
        /// Name the connection of this configuration of an agent that serves it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Fetch what a reference names, and show its version and the shape of the kubeconfig
    Check {
        /// The reference, in quotes
        reference: String,
        /// The configuration of an agent, with the connection that serves it
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Context of the kubeconfig; its current one otherwise
        #[arg(long)]
        context: Option<String>,
    },
    /// Print a YAML file with its references in Sortie's form, all else as it is written
    Migrate {
        /// The file
        file: PathBuf,
        /// Change the file instead
        #[arg(long)]
        write: bool,
    },
}

/// Who can be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Role {
    Agent,
    Client,
}

fn subject_and_agent(text: &str) -> Result<(String, String), String> {
    let shape = || "write NAMESPACE/SERVICEACCOUNT=AGENT".to_owned();
    let (subject, agent) = text.split_once('=').ok_or_else(shape)?;
    let (namespace, account) = subject.split_once('/').ok_or_else(shape)?;
    if namespace.is_empty() || account.is_empty() || account.contains('/') || agent.is_empty() {
        return Err(shape());
    }
    Ok((subject.to_owned(), agent.to_owned()))
}
