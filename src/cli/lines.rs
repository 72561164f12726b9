//! The stored lines of a job, from the collector or from a store, for all commands that need some.
//!
//! A connection that breaks is opened again, and the answer goes on exactly where it broke off: a block of
//! it counts when it has come whole, and says what comes after it.

use std::time::Duration;

use futures::AsyncBufRead;
use k8s_openapi::jiff::Timestamp;
use thiserror::Error;
use tokio::{sync::mpsc, time::timeout};

use super::cluster::{self, Cluster};
use crate::logs::{
    http::{
        self,
        blocks::{self, Arrived},
        parameters::Parameters,
    },
    job,
    lake::OpenError,
    read::{self, Answer, Block},
    store::Store,
};

/// Longest silence: the collector sends an empty block more often.
const SILENCE: Duration = Duration::from_secs(60);
/// How often in a row a connection is opened again without anything new coming, and the waits before
/// the first and the last of them; a collector that is being replaced is back by then.
const TRIES: u32 = 12;
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Why there are no lines, or not all.
#[derive(Debug, Error)]
pub enum Error {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Question(String),
    /// The cluster or the collector.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The store.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The place of the store.
    #[error(transparent)]
    Place(#[from] OpenError),
    /// In the middle of it.
    #[error(
        "the connection to the collector broke and could not be opened again, so lines are missing here: {0}; they are stored: run the command again"
    )]
    Broken(String),
}

/// Which job's, and which of them.
#[derive(Clone, Debug)]
pub struct Question {
    /// Name of the job.
    pub job: String,
    /// The rest.
    pub parameters: Parameters,
}

impl Question {
    /// Whether more is waited for.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.parameters.follow == Some(true)
    }
}

/// The answer to a question.
pub enum Lines<'a> {
    /// Of the collector.
    Collector(Box<Connection<'a>>),
    /// Of a store.
    Store(mpsc::Receiver<Result<Block, read::Error>>),
}

impl<'a> Lines<'a> {
    /// From the collector of a cluster.
    ///
    /// # Errors
    /// Where it can't be asked, or has none.
    pub async fn of_collector(cluster: &'a Cluster, mut question: Question) -> Result<Self, Error> {
        question.parameters.blocks = Some(true);
        (question.parameters.meaning(Timestamp::now())).map_err(Error::Question)?;
        let mut connection = Connection {
            cluster,
            question,
            body: None,
        };
        connection.body = Some(connection.open().await?);
        Ok(Self::Collector(Box::new(connection)))
    }

    /// From a store. With a cluster, of the job that has the name there, and until it has ended.
    ///
    /// # Errors
    /// Where it can't be read, or has none.
    pub async fn of_store(
        place: &str,
        cluster: Option<&Cluster>,
        namespace: &str,
        question: Question,
    ) -> Result<Self, Error> {
        let asked = question.parameters.meaning(Timestamp::now());
        let (selection, shape) = asked.map_err(Error::Question)?;
        let client = cluster.map(|cluster| cluster.client.clone());
        let store = Store::at(place)?;
        let opened = job::open(store, client.as_ref(), namespace, &question.job, selection);
        let (reader, job) = opened.await?;
        let ended = question.follows().then_some(async move {
            match client {
                Some(client) => job::ended(client, job).await,
                None => std::future::pending().await,
            }
        });
        Ok(Self::Store(Answer::new(reader, shape).start(ended)))
    }

    /// The next ones; the last block says that it is the last.
    ///
    /// # Errors
    /// Where they can't be read.
    pub async fn next(&mut self) -> Result<Arrived, Error> {
        match self {
            Self::Collector(connection) => connection.next().await,
            Self::Store(blocks) => match blocks.recv().await {
                Some(block) => Ok(block?.into()),
                None => Err(read::Error::Stopping.into()),
            },
        }
    }
}

/// A connection to the collector.
pub struct Connection<'a> {
    cluster: &'a Cluster,
    question: Question,
    body: Option<Body>,
}

type Body = Box<dyn AsyncBufRead + Send + Unpin>;

impl Connection<'_> {
    async fn open(&self) -> Result<Body, cluster::Error> {
        let Question { job, parameters } = &self.question;
        let path = http::path(&self.cluster.namespace, job, parameters);
        Ok(Box::new(self.cluster.ask(&path).await?))
    }

    async fn next(&mut self) -> Result<Arrived, Error> {
        let mut wait = WAIT.0;
        for _ in 0..TRIES {
            let why = match self.try_next().await {
                Ok(block) => {
                    let parameters = &mut self.question.parameters;
                    parameters.cursor = Some(block.cursor.clone());
                    parameters.tail = None;
                    return Ok(block);
                }
                Err(Error::Broken(why)) => why,
                Err(error) => return Err(error),
            };
            self.body = None;
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT.1);
            tracing::debug!("goes on after a broken connection: {why}");
        }
        // Once more, for its error.
        self.try_next().await
    }

    async fn try_next(&mut self) -> Result<Arrived, Error> {
        if self.body.is_none() {
            match self.open().await {
                Ok(body) => self.body = Some(body),
                Err(error) if error.may_pass() => return Err(Error::Broken(error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(body) = &mut self.body else {
            return Err(Error::Broken("there is none".into()));
        };
        match timeout(SILENCE, blocks::read(body)).await {
            Ok(Ok(block)) => Ok(block),
            Ok(Err(error)) => Err(Error::Broken(error.to_string())),
            Err(_) => Err(Error::Broken("it has gone silent".into())),
        }
    }
}
