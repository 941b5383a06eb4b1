//! PostgreSQL, as its administrator and as the workload see it.

use std::future::Future;

use serde_json::Value;
use tokio_postgres::{Config, NoTls};

use crate::harness::text;

/// The stack's database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    config: Config,
    admin: (String, String),
}

impl Database {
    pub(crate) fn of(stack: &Value) -> Self {
        let described = &stack["postgres"];
        let mut config = Config::new();
        config.host(text(&described["host"])).dbname(text(&described["dbname"]));
        config.port(described["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port"));
        config.connect_timeout(std::time::Duration::from_secs(10));
        Self {
            config,
            admin: (text(&described["admin_user"]).to_owned(), text(&described["admin_password"]).to_owned()),
        }
    }

    /// Does the work of the workload: logs in and reads an order.
    pub(crate) fn use_as(&self, user: &str, password: &str) -> Result<(), String> {
        block_on(async {
            let client = self.connect(user, password).await.map_err(|error| said(&error))?;
            let row = client
                .query_one("SELECT item FROM orders WHERE id = 1", &[])
                .await
                .map_err(|error| said(&error))?;
            match row.get::<_, &str>(0) {
                "first order" => Ok(()),
                other => Err(format!("there is another order: {other}")),
            }
        })
    }

    /// Those of `users` that exist.
    pub(crate) fn existing(&self, users: &[String]) -> Vec<String> {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        self.names("SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)", &[&users])
    }

    fn names(&self, query: &str, values: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Vec<String> {
        block_on(async {
            let (user, password) = &self.admin;
            let client = self.connect(user, password).await.expect("the administrator logs in");
            let rows = client.query(query, values).await.expect("pg_roles");
            rows.iter().map(|row| row.get(0)).collect()
        })
    }

    async fn connect(
        &self,
        user: &str,
        password: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = self.config.clone();
        let (client, connection) = config.user(user).password(password).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
