//! A small stand-in for AWS STS on loopback: it gives out a role's credentials, or refuses the role.
//!
//! `AssumeRole` and `AssumeRoleWithWebIdentity`, answered in the XML of the API reference (version 2011-06-15).
//! Signatures are not checked, only who signed is noted.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longest request that is read.
const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `AssumeRole` or `AssumeRoleWithWebIdentity`.
    pub action: String,
    /// ARN of the role.
    pub role: String,
    /// Id of the access key that the request is signed with, if it is signed.
    pub signed_by: Option<String>,
    /// The web identity token, if it has one.
    pub web_identity: Option<String>,
}

/// A running stand-in; ends when it is dropped.
#[derive(Debug)]
pub struct Sts {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Sts {
    /// Gives credentials for any role but those whose ARN ends with `/refused`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away is not missed.
                let _ = answer(stream, &noted).await;
            }
        });
        Ok(Self {
            address,
            asked,
            task,
        })
    }

    /// What `AWS_ENDPOINT_URL_STS` is set to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked for so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Id of the access key that stands for a role: a function of its name.
#[must_use]
pub fn access_key_id(role: &str) -> String {
    let name = role.rsplit('/').next().unwrap_or_default();
    format!("ASIA{}", name.to_uppercase())
}

/// The session token that stands for a role.
#[must_use]
pub fn session_token(role: &str) -> String {
    format!("token-of-{}", access_key_id(role))
}

fn lock(asked: &Mutex<Vec<Asked>>) -> MutexGuard<'_, Vec<Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads one request of a connection, answers it and closes.
async fn answer(stream: TcpStream, noted: &Mutex<Vec<Asked>>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(MAX_REQUEST_BYTES));
    let (mut length, mut signed_by) = (0, None);
    loop {
        let mut line = String::new();
        read.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case("authorization") {
            let credential = value.split_once("Credential=");
            let key = credential.and_then(|(_, rest)| rest.split_once('/'));
            signed_by = key.map(|(id, _)| id.to_owned());
        }
    }
    if length as u64 > MAX_REQUEST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut form = vec![0; length];
    read.read_exact(&mut form).await?;
    let form = String::from_utf8_lossy(&form);
    let asked = Asked {
        action: member(&form, "Action").unwrap_or_default(),
        role: member(&form, "RoleArn").unwrap_or_default(),
        signed_by,
        web_identity: member(&form, "WebIdentityToken"),
    };
    let (status, body) = match asked.role.ends_with("/refused") {
        true => ("403 Forbidden", refusal(&asked)),
        false => ("200 OK", credentials(&asked)),
    };
    lock(noted).push(asked);
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await
}

/// A member of a form, decoded.
fn member(form: &str, name: &str) -> Option<String> {
    let mut members = form.split('&').filter_map(|member| member.split_once('='));
    let (_, value) = members.find(|(known, _)| *known == name)?;
    let mut pieces = value.split('%');
    let mut text = pieces.next()?.replace('+', " ");
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        text.push(u8::from_str_radix(code, 16).ok()?.into());
        text.push_str(rest);
    }
    Some(text)
}

fn credentials(asked: &Asked) -> String {
    let (action, role) = (&asked.action, &asked.role);
    let (id, token) = (access_key_id(role), session_token(role));
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>{token}</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
         <AssumedRoleUser><AssumedRoleId>AROA:tests</AssumedRoleId><Arn>{role}/tests</Arn></AssumedRoleUser>\
         </{action}Result><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"
    )
}

fn refusal(asked: &Asked) -> String {
    let (action, role) = (&asked.action, &asked.role);
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>AccessDenied</Code><Message>not authorized to perform sts:{action} on {role}</Message></Error>\
         <RequestId>1</RequestId></ErrorResponse>"
    )
}
