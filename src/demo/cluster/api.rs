//! Requests: from a route to an answer.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::answers::{
    Body, agent_of, aggregated_answer, aggregated_form, answer, json_answer, parse, parse_json,
    patch_form, read, text_answer,
};
use super::discovery;
use super::fields::text;
use super::lists::Lists;
use super::objects::{Objects, Part, PatchForm, Write, apply_patch};
use super::parts;
use super::refusal::Refusal;
use super::route::{Query, Resource, Route};
use super::selector::Selector;
use super::store::Key;
use super::watching::{Watching, Wish};
use crate::secret::SecretBytes;
use crate::tasks::Tasks;

/// Lines of a watch that wait for its connection.
const FRAMES: usize = 16;

/// The API behind the listener.
pub(super) struct Api {
    pub(super) objects: Objects,
    /// `Bearer …`, as the request has to say it.
    pub(super) authorization: SecretBytes,
    pub(super) address: String,
    pub(super) bookmark_every: Duration,
    pub(super) lists: Arc<Lists>,
    pub(super) tasks: Tasks,
}

impl Api {
    /// Answers one request; what fails is answered with a `Status`.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self.try_answer(request).await {
            Ok(response) => response,
            Err(refusal) => json_answer(refusal.code, &refusal.to_status()),
        }
    }

    async fn try_answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let said = request
            .headers()
            .get(AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        #[expect(
            clippy::disallowed_methods,
            reason = "compared with what the client says"
        )]
        let wanted = self.authorization.expose_secret();
        if verify_slices_are_equal(said.unwrap_or_default(), wanted).is_err() {
            return Err(Refusal::unauthorized());
        }
        let route = Route::parse(request.uri().path());
        if let Route::Resource(resource) = route {
            return self.resource(&resource, request).await;
        }
        if request.method() != Method::GET {
            return Err(Refusal::method_not_allowed());
        }
        let found = match route {
            Route::CoreVersions => Some(match aggregated_form(request.headers()) {
                Some(form) => return Ok(aggregated_answer(true, form)),
                None => discovery::core_versions(&self.address),
            }),
            Route::Groups => Some(match aggregated_form(request.headers()) {
                Some(form) => return Ok(aggregated_answer(false, form)),
                None => discovery::groups(),
            }),
            Route::Group(name) => discovery::group(&name),
            Route::GroupVersion(group, version) => discovery::group_version(&group, &version),
            Route::Version => Some(discovery::version()),
            Route::Health => return Ok(text_answer("ok")),
            Route::OpenApi => Some(discovery::openapi()),
            Route::OpenApiOf(group, version) => discovery::openapi_of(&group, &version),
            Route::Resource(_) | Route::Nowhere => None,
        };
        let found = found.ok_or_else(Refusal::no_such_path)?;
        Ok(json_answer(StatusCode::OK, &found))
    }

    async fn resource(
        &self,
        resource: &Resource,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let (head, body) = request.into_parts();
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let body = read(body).await?;
        if resource.kind.is_review() {
            return review(&head.method, &body);
        }
        let one = !resource.name.is_empty();
        match (head.method, one) {
            (Method::GET, true) if resource.subresource == "log" => self.log(resource, &query),
            (Method::GET, true) => {
                let found = self.current(resource)?;
                let answer = shape(resource, &found);
                Ok(json_answer(StatusCode::OK, &answer))
            }
            (Method::GET, false) if query.flag("watch") => {
                self.watch(resource, &query, agent_of(&head.headers))
            }
            (Method::GET, false) => self.list(resource, &query, agent_of(&head.headers)),
            (Method::POST, false) => {
                let write = write_of(resource, &query);
                let object = parse(&head.headers, &body)?;
                let namespace = &resource.namespace;
                let made = self
                    .objects
                    .create(resource.kind, namespace, object, &write)?;
                Ok(json_answer(StatusCode::CREATED, &made))
            }
            (Method::PUT, true) => {
                let object = parse(&head.headers, &body)?;
                self.put(resource, object, &write_of(resource, &query))
            }
            (Method::PATCH, true) => {
                let form = patch_form(&head.headers)?;
                let patch = parse_json(&body)?;
                self.patch(resource, form, patch, &write_of(resource, &query))
            }
            (Method::DELETE, true) => self.delete(resource, &query, &body),
            (Method::DELETE, false) => self.delete_collection(resource, &query),
            _ => Err(Refusal::method_not_allowed()),
        }
    }

    fn current(&self, resource: &Resource) -> Result<Arc<Value>, Refusal> {
        let found = self.objects.store.get(&key_of(resource));
        found.ok_or_else(|| Refusal::not_found(resource.kind, &resource.name))
    }

    fn log(&self, resource: &Resource, query: &Query) -> Result<Response<Body>, Refusal> {
        let pod = self.current(resource)?;
        Ok(text_answer(&parts::log_of(
            &pod,
            query.text("container"),
            query.number("tailLines"),
        )))
    }

    fn list(
        &self,
        resource: &Resource,
        query: &Query,
        agent: &str,
    ) -> Result<Response<Body>, Refusal> {
        let selector = Selector::parse(query.text("labelSelector"), query.text("fieldSelector"))?;
        let page = parts::Page::parse(query)?;
        let kind = resource.kind;
        let at = page.version;
        if at.is_none() {
            self.lists.listed(agent, kind, &resource.namespace);
        }
        let listed = self.objects.store.list(kind, &resource.namespace, at)?;
        if let (None, Some(asked)) = (at, query.number("resourceVersion"))
            && asked > listed.version
        {
            return Err(Refusal::from_the_future(asked, listed.version));
        }
        let mut objects = listed.objects;
        objects.retain(|(_, object)| selector.matches(object));
        let (metadata, objects) = page.cut(listed.version, objects);
        let items: Vec<Value> = objects.iter().map(|object| parts::item(object)).collect();
        let list = json!({
            "kind": format!("{}List", kind.name), "apiVersion": kind.api_version(),
            "metadata": metadata, "items": items,
        });
        Ok(json_answer(StatusCode::OK, &list))
    }

    fn watch(
        &self,
        resource: &Resource,
        query: &Query,
        agent: &str,
    ) -> Result<Response<Body>, Refusal> {
        let version = query.number("resourceVersion").unwrap_or(0);
        let mark_end = query.flag("sendInitialEvents");
        let refused = query.text("sendInitialEvents") == "false";
        let wish = Wish {
            kind: resource.kind,
            namespace: resource.namespace.clone(),
            selector: Selector::parse(query.text("labelSelector"), query.text("fieldSelector"))?,
            initial: mark_end || (version == 0 && !refused),
            mark_end: mark_end && query.flag("allowWatchBookmarks"),
            bookmarks: query.flag("allowWatchBookmarks"),
            version,
            timeout: query.number("timeoutSeconds").map(Duration::from_secs),
        };
        if wish.initial {
            self.lists.listed(agent, wish.kind, &wish.namespace);
        } else if version < self.objects.store.forgotten() {
            self.lists.gone(agent, wish.kind, &wish.namespace);
        }
        let (frames, coming) = mpsc::channel(FRAMES);
        let store = Arc::clone(&self.objects.store);
        let watching = Watching::new(store, wish, frames, self.bookmark_every);
        self.tasks.spawn("cluster-watch", |stop| watching.run(stop));
        let lines = ReceiverStream::new(coming).map(|line| Ok(Frame::data(line)));
        Ok(answer(
            StatusCode::OK,
            "application/json",
            StreamBody::new(lines).boxed(),
        ))
    }

    fn put(
        &self,
        resource: &Resource,
        object: Value,
        write: &Write<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let key = key_of(resource);
        let updated = match resource.subresource.as_str() {
            "scale" => self.scale(resource, write, |_| Ok(object))?,
            "log" => return Err(Refusal::method_not_allowed()),
            _ => self.objects.update(resource.kind, &key, object, write)?,
        };
        Ok(json_answer(StatusCode::OK, &shape(resource, &updated)))
    }

    fn patch(
        &self,
        resource: &Resource,
        form: PatchForm,
        patch: Value,
        write: &Write<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let key = key_of(resource);
        let existed = self.objects.store.get(&key).is_some();
        let patched = match resource.subresource.as_str() {
            "scale" => self.scale(resource, write, |mut scale| {
                apply_patch(resource.kind, &resource.name, &mut scale, form, &patch)?;
                Ok(scale)
            })?,
            "log" => return Err(Refusal::method_not_allowed()),
            _ => self
                .objects
                .patch(resource.kind, &key, form, patch, write)?,
        };
        let code = if existed {
            StatusCode::OK
        } else {
            StatusCode::CREATED
        };
        Ok(json_answer(code, &shape(resource, &patched)))
    }

    /// Edits the scale of an object.
    fn scale(
        &self,
        resource: &Resource,
        write: &Write<'_>,
        edit: impl FnOnce(Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let (kind, key) = (resource.kind, key_of(resource));
        self.objects.revise(kind, &key, write, |current| {
            let scale = edit(parts::scale_of(current))?;
            let replicas = scale.pointer("/spec/replicas").and_then(Value::as_u64);
            let replicas = replicas.ok_or_else(|| {
                Refusal::invalid(kind, &resource.name, "spec.replicas: Required value")
            })?;
            let mut object = current.clone();
            super::patch::merge(&mut object, &json!({"spec": {"replicas": replicas}}));
            if let (Some(to), Some(said)) = (
                object.pointer_mut("/metadata/resourceVersion"),
                scale.pointer("/metadata/resourceVersion"),
            ) {
                *to = said.clone();
            }
            Ok(object)
        })
    }

    fn delete(
        &self,
        resource: &Resource,
        query: &Query,
        body: &Bytes,
    ) -> Result<Response<Body>, Refusal> {
        if !resource.subresource.is_empty() {
            return Err(Refusal::method_not_allowed());
        }
        // kubectl sends options; whatever else is in the body does not matter.
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        let uid = options
            .pointer("/preconditions/uid")
            .and_then(Value::as_str);
        let policy = match query.text("propagationPolicy") {
            "" => text(&options, "/propagationPolicy"),
            said => said,
        };
        let key = key_of(resource);
        let dry_run = !query.text("dryRun").is_empty() || options.get("dryRun").is_some();
        let gone = if dry_run {
            self.current(resource)?
        } else {
            self.objects
                .delete(resource.kind, &key, uid, policy == "Orphan")?
        };
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": resource.name, "group": resource.kind.group,
                "kind": resource.kind.plural, "uid": text(&gone, "/metadata/uid"),
            },
        });
        Ok(json_answer(StatusCode::OK, &status))
    }

    fn delete_collection(
        &self,
        resource: &Resource,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let kind = resource.kind;
        let selector = Selector::parse(query.text("labelSelector"), query.text("fieldSelector"))?;
        let listed = self.objects.store.list(kind, &resource.namespace, None)?;
        let mut gone = Vec::new();
        for (key, object) in listed.objects {
            if selector.matches(&object) {
                // Another request may have deleted it in the meantime.
                if self.objects.delete(kind, &key, None, false).is_ok() {
                    gone.push(parts::item(&object));
                }
            }
        }
        let list = json!({
            "kind": format!("{}List", kind.name), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": self.objects.store.version().to_string()},
            "items": gone,
        });
        Ok(json_answer(StatusCode::OK, &list))
    }
}

/// The object, or the part of it that the request is about.
fn shape(resource: &Resource, object: &Value) -> Value {
    match resource.subresource.as_str() {
        "scale" => parts::scale_of(object),
        _ => object.clone(),
    }
}

fn key_of(resource: &Resource) -> Key {
    Key::new(resource.kind, &resource.namespace, &resource.name)
}

fn write_of<'a>(resource: &Resource, query: &'a Query) -> Write<'a> {
    let manager = match query.text("fieldManager") {
        "" => "unknown",
        said => said,
    };
    Write {
        part: match resource.subresource.as_str() {
            "status" => Part::Status,
            _ => Part::Main,
        },
        dry_run: !query.text("dryRun").is_empty(),
        manager,
    }
}

/// Answers an access review: everything is allowed here.
fn review(method: &Method, body: &Bytes) -> Result<Response<Body>, Refusal> {
    if method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    // kubectl may send protobuf here; what is asked does not change the answer.
    let mut review = parse_json(body).unwrap_or_default();
    super::patch::merge(
        &mut review,
        &json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "status": {"allowed": true, "reason": "everything is allowed here"},
        }),
    );
    Ok(json_answer(StatusCode::CREATED, &review))
}
