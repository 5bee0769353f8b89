//! The server: takes requests, asks the plan, forwards, and answers or does not.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

use serde_json::Value;

use crate::answer::{Script, Step};
use crate::capacity::{Admission, Capacity};
use crate::fault::{Cut, Family, Fault, Refusal, throttled};
use crate::plan::Plan;
use crate::service::{Service, Signer, operation};
use crate::split::{add_unprocessed, split};

/// Exchanges that a slow listener may be behind before it misses some.
const EXCHANGES: usize = 4_096;

/// What was written of an answer is on the wire after this long.
const FLUSH: Duration = Duration::from_millis(20);

/// A request that the service answered and whose answer was handed on whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Operation, such as `PutItem`.
    pub operation: String,
    /// HTTP status.
    pub status: u16,
    /// When the service had answered.
    pub at: Instant,
}

/// A running proxy; ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    service: Service,
    target: String,
    plan: Mutex<Plan>,
    /// Requests so far.
    requests: AtomicU64,
    /// Faults so far.
    met: Mutex<BTreeMap<Family, u64>>,
    /// Who signed the requests so far; `None` for those without a signature.
    signers: Mutex<BTreeSet<Option<Signer>>>,
    open: AtomicBool,
    cuts: watch::Sender<u64>,
    exchanges: broadcast::Sender<Exchange>,
    capacity: Mutex<Option<Arc<Capacity>>>,
}

impl Proxy {
    /// Starts to forward to `target` (`host:port`).
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: &str, service: Service, plan: Plan) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            service,
            target: target.to_owned(),
            plan: Mutex::new(plan),
            requests: AtomicU64::new(0),
            met: Mutex::default(),
            signers: Mutex::default(),
            open: AtomicBool::new(true),
            cuts: watch::channel(0).0,
            exchanges: broadcast::channel(EXCHANGES).0,
            capacity: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// URL to give to a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another plan from the next request on; numbers go on.
    pub fn set_plan(&self, plan: Plan) {
        *lock(&self.shared.plan) = plan;
    }

    /// From the next request on, what meets no fault must fit the capacity of a table.
    pub fn set_capacity(&self, capacity: Arc<Capacity>) {
        *lock(&self.shared.capacity) = Some(capacity);
    }

    /// Faults so far.
    #[must_use]
    pub fn met(&self) -> BTreeMap<Family, u64> {
        lock(&self.shared.met).clone()
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Who signed the requests so far; `None` for those without a signature.
    #[must_use]
    pub fn signers(&self) -> BTreeSet<Option<Signer>> {
        lock(&self.shared.signers).clone()
    }

    /// What is answered whole from now on.
    #[must_use]
    pub fn exchanges(&self) -> broadcast::Receiver<Exchange> {
        self.shared.exchanges.subscribe()
    }

    /// Ends all connections and refuses new ones.
    pub fn cut(&self) {
        self.shared.open.store(false, Ordering::SeqCst);
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Takes connections again.
    pub fn restore(&self) {
        self.shared.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        if shared.open.load(Ordering::SeqCst) {
            tokio::spawn(serve(stream, Arc::clone(&shared)));
        }
    }
}

/// One connection of a client, until it ends, is cut or is reset.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cuts.subscribe();
    let _ = stream.set_nodelay(true);
    let Ok(stream) = stream.into_std() else {
        return;
    };
    // A second handle: the server owns the first one.
    let (Ok(handle), Ok(stream)) = (stream.try_clone(), TcpStream::from_std(stream)) else {
        return;
    };
    let reset = Arc::new(Notify::new());
    let link = Arc::new(Link {
        shared,
        far: tokio::sync::Mutex::new(None),
        reset: Arc::clone(&reset),
    });
    let service = service_fn(move |request| {
        let link = Arc::clone(&link);
        async move { link.answer(request).await }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that went away, or an answer that was meant to break off.
        _ = connection => {}
        _ = cut.changed() => {}
        () = reset.notified() => {
            if let Ok(handle) = TcpStream::from_std(handle) {
                // Closed with nothing to wait for, a connection is reset.
                let _ = handle.set_zero_linger();
            }
        }
    }
}

/// What the requests of one client connection share.
struct Link {
    shared: Arc<Shared>,
    /// The connection to the service, once there is one.
    far: tokio::sync::Mutex<Option<SendRequest<Full<Bytes>>>>,
    reset: Arc<Notify>,
}

/// An answer of the service.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Link {
    /// The answer to a request; an error closes the connection without one.
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Script>> {
        let shared = &*self.shared;
        let service = shared.service;
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let operation = operation(&head.headers);
        lock(&shared.signers).insert(Signer::of(&head.headers));
        let number = shared.requests.fetch_add(1, Ordering::Relaxed);
        let fault = lock(&shared.plan).fault(service, &operation, number);
        let Some((family, fault)) = fault else {
            let capacity = lock(&shared.capacity).clone();
            let answer = match capacity {
                Some(capacity) => self.limited(&capacity, &operation, &head, body).await?,
                None => self.forward(&head, body).await?,
            };
            shared.note(&operation, &answer);
            return Ok(answer.whole());
        };
        *lock(&shared.met).entry(family).or_default() += 1;
        match fault {
            Fault::Refuse(refusal) => Ok(refused(refusal)),
            Fault::Unprocessed(mask) => self.unprocessed(&head, &body, mask).await,
            Fault::LoseAnswer => {
                self.forward(&head, body).await?;
                Err(io::Error::other("the answer is lost"))
            }
            Fault::LoseAnswerTo(refusal) => {
                self.forward(&head, body).await?;
                Ok(refused(refusal))
            }
            Fault::ResetBefore => {
                self.reset.notify_one();
                pending().await
            }
            Fault::ResetWithin => {
                let answer = self.forward(&head, body).await?;
                Ok(answer.broken(|half| {
                    Script::new([
                        Step::Bytes(half),
                        Step::Wait(FLUSH),
                        Step::Reset(Arc::clone(&self.reset)),
                    ])
                }))
            }
            Fault::HalfOpen { forwarded } => {
                if forwarded {
                    self.forward(&head, body).await?;
                }
                pending().await
            }
            Fault::Stall => {
                let answer = self.forward(&head, body).await?;
                Ok(answer.broken(|half| Script::new([Step::Bytes(half), Step::Hang])))
            }
            Fault::Truncate(cut) => {
                let mut answer = self.forward(&head, body).await?;
                match cut {
                    Cut::Connection => {
                        let script =
                            |half| Script::new([Step::Bytes(half), Step::Wait(FLUSH), Step::Close]);
                        return Ok(answer.broken(script));
                    }
                    // An answer of `{}` has no half that is not JSON.
                    Cut::Json if answer.body.len() > 2 => {
                        answer.body.truncate(answer.body.len() / 2);
                    }
                    Cut::Json | Cut::Empty => answer.body.clear(),
                }
                Ok(answer.whole())
            }
            Fault::Slow(time) => {
                let answer = self.forward(&head, body).await?;
                shared.note(&operation, &answer);
                let script = Script::slow(&answer.body, time);
                Ok(answer.with(script))
            }
        }
    }

    /// The answer of a table with this capacity.
    async fn limited(
        &self,
        capacity: &Capacity,
        operation: &str,
        head: &hyper::http::request::Parts,
        body: Bytes,
    ) -> io::Result<Answer> {
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (taken, split) = match capacity.admit(operation, &request) {
            Admission::Free if operation == "DescribeTable" => {
                let mut answer = self.forward(head, body).await?;
                return answer.edit(|json| capacity.describe(json)).map(|()| answer);
            }
            Admission::Free => return self.forward(head, body).await,
            Admission::Refuse(refusal) => return Ok(Answer::of(refusal)),
            Admission::Forward { taken, split } => (taken, split),
        };
        let (body, left) = match split {
            Some(split) => (split.forwarded.to_string().into(), split.left),
            None => (body, serde_json::Map::new()),
        };
        let mut answer = self.forward(head, body).await?;
        answer.edit(|json| {
            capacity.settle(&taken, json);
            if !left.is_empty() {
                add_unprocessed(json, left);
            }
        })?;
        Ok(answer)
    }

    async fn unprocessed(
        &self,
        head: &hyper::http::request::Parts,
        body: &Bytes,
        mask: u64,
    ) -> io::Result<Response<Script>> {
        let request = serde_json::from_slice(body).map_err(io::Error::other)?;
        let Some(parts) = split(&request, mask) else {
            // The service's own rule: where nothing can be processed, the call is throttled.
            let throttle = throttled(self.shared.service, "BatchWriteItem", 0);
            return Ok(refused(throttle));
        };
        let mut answer = self
            .forward(head, parts.forwarded.to_string().into())
            .await?;
        if answer.status.is_success() {
            let mut json = serde_json::from_slice(&answer.body).map_err(io::Error::other)?;
            add_unprocessed(&mut json, parts.left);
            answer.body = json.to_string().into();
        }
        Ok(answer.whole())
    }

    /// Sends a request on, and reads its whole answer.
    async fn forward(&self, head: &hyper::http::request::Parts, body: Bytes) -> io::Result<Answer> {
        let mut request = Request::builder()
            .method(head.method.clone())
            .uri(head.uri.clone())
            .body(Full::new(body.clone()))
            .map_err(io::Error::other)?;
        *request.headers_mut() = head.headers.clone();
        request
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let mut far = self.far.lock().await;
        let mut known = far.take();
        let ready = match &mut known {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        let mut sender = match known {
            Some(sender) if ready => sender,
            _ => self.connect().await?,
        };
        let answer = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        *far = Some(sender);
        let mut headers = head.headers;
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
            headers.remove(name);
        }
        Ok(Answer {
            status: head.status,
            headers,
            body,
        })
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.shared.target).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

impl Shared {
    fn note(&self, operation: &str, answer: &Answer) {
        // Nobody may be listening.
        let _ = self.exchanges.send(Exchange {
            operation: operation.to_owned(),
            status: answer.status.as_u16(),
            at: Instant::now(),
        });
    }
}

impl Answer {
    fn of(refusal: Refusal) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(refusal.content_type));
        Self {
            status: StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_GATEWAY),
            headers,
            body: refusal.body,
        }
    }

    /// Changes the JSON of an answer that is a success.
    fn edit(&mut self, edit: impl FnOnce(&mut Value)) -> io::Result<()> {
        if self.status.is_success() {
            let mut json = serde_json::from_slice(&self.body).map_err(io::Error::other)?;
            edit(&mut json);
            self.body = json.to_string().into();
        }
        Ok(())
    }

    fn whole(self) -> Response<Script> {
        let script = Script::whole(self.body.clone());
        self.with(script)
    }

    /// Announces the whole body, and gives what `script` makes of its first half.
    fn broken(self, script: impl FnOnce(Bytes) -> Script) -> Response<Script> {
        let half = self.body.slice(..self.body.len() / 2);
        self.with(script(half))
    }

    fn with(self, script: Script) -> Response<Script> {
        let length = HeaderValue::from(self.body.len());
        let mut response = Response::new(script);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response
    }
}

fn refused(refusal: Refusal) -> Response<Script> {
    Answer::of(refusal).whole()
}
