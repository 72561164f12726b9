//! The `OpenAPI` document of the API, and a page that shows it. The document is made from the types that
//! questions are read into and answers are written from, so it can't say anything else than they do.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{
    COMPLETENESS, CURSOR_HEADER, CompletenessParameters, JOB, LOGS, Parameters,
    access::TOKEN_HEADER,
};
use crate::logs::read::{JsonLine, completeness::Completeness};

/// Where the document is.
pub const DOCUMENT: &str = "/openapi.json";
/// Where the page is.
pub const PAGE: &str = "/";

/// The document.
pub fn document() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let line = schemas.subschema_for::<JsonLine<'_>>();
    let completeness = schemas.subschema_for::<Completeness>();
    let logs = operation(
        "The lines of a job",
        "The lines of all ranks, merged by time; those of one container keep their order. Also of jobs \
         and pods that are gone: of several jobs of the name, the one that is there, or the newest.",
        &parameters::<Parameters>(),
        &json!({
            "description": "The lines. Where the connection breaks in the middle, some are missing.",
            "headers": {CURSOR_HEADER: {
                "description": "With limit: what goes on after this answer.",
                "schema": {"type": "string"},
            }},
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/jsonl": {"schema": line},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "application/x-trainyard-blocks": {"schema": {"type": "string", "format": "binary"}},
            },
        }),
    );
    let complete = operation(
        "How complete the lines of a job are",
        "For each container of each rank of each attempt: how many lines are stored, whether that is \
         proven to be all of them, and where some are or may be missing.",
        &parameters::<CompletenessParameters>(),
        &json!({
            "description": "How complete they are.",
            "content": {"application/json": {"schema": completeness}},
        }),
    );
    let job = operation(
        "A job as it was",
        "The newest job of the name, as it was stored last: its manifest, and its status with all of its \
         attempts, of which the object itself keeps the newest ten. Also of jobs that are gone.",
        &[],
        &json!({
            "description": "A TrainingJob; kubectl explain trainingjob describes it.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "trainyard logs",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every line of every container of a training job, also after its pods are gone. \
                Whoever may get pods/log in a namespace may read there.",
        },
        "security": [{"bearer": []}, {"proxied": []}],
        "paths": {LOGS: {"get": logs}, COMPLETENESS: {"get": complete}, JOB: {"get": job}},
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer",
                    "description": "A Kubernetes token, such as one from kubectl create token."},
                "proxied": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER,
                    "description": "The same, for those who come through the API server's proxy, which \
                        keeps Authorization to itself."},
            },
        },
    })
}

fn operation(summary: &str, description: &str, parameters: &[Value], answer: &Value) -> Value {
    let refusal = |why| json!({"description": why, "content": {"text/plain": {}}});
    let in_path = |name: &str, description| {
        json!({"name": name, "in": "path", "required": true,
            "description": description, "schema": {"type": "string"}})
    };
    let mut all = vec![
        in_path("namespace", "Namespace of the job."),
        in_path("job", "Name of the job."),
    ];
    all.extend_from_slice(parameters);
    json!({
        "summary": summary,
        "description": description,
        "parameters": all,
        "responses": {
            "200": answer,
            "400": refusal("A parameter is wrong; the text says which, and why."),
            "401": refusal("No token, or none that the API server accepts."),
            "403": refusal("You may not get pods/log in this namespace."),
            "404": refusal("Nothing of it is stored; the text says what is."),
            "429": refusal("Too many readers at a time."),
            "503": refusal("The API server can't be asked about you, or the collector is stopping."),
        },
    })
}

/// The fields of `T`, as parameters in a URL's query.
fn parameters<T: JsonSchema>() -> Vec<Value> {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    let properties = schema.get("properties").and_then(Value::as_object);
    (properties.into_iter().flatten())
        .map(|(name, property)| {
            let mut property = property.clone();
            let object = property.as_object_mut();
            let description = object.and_then(|object| {
                object.remove("default");
                // Left out is what null would be.
                if let Some(types) = object.get_mut("type")
                    && let Some([first, ..]) = types.as_array().map(Vec::as_slice)
                {
                    *types = first.clone();
                }
                object.remove("description")
            });
            json!({"name": name, "in": "query", "description": description, "schema": property})
        })
        .collect()
}

/// The page: it needs nothing from anywhere else.
pub fn page() -> String {
    let document = document();
    // Inside of a script element only this could end it.
    let text = document.to_string().replace("</", "<\\/");
    include_str!("page.html").replace("{{document}}", &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_parameter_and_every_schema_that_it_speaks_of() {
        let document = document();
        let get = &document["paths"][LOGS]["get"];
        let named = |operation: &Value| -> Vec<String> {
            let all = operation["parameters"].as_array().unwrap().iter();
            all.map(|p| {
                assert!(p["description"].is_string(), "{p}");
                assert!(p["schema"]["type"].is_string(), "{p}");
                p["name"].as_str().unwrap().to_owned()
            })
            .collect()
        };
        let mut names = named(get);
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "attempt",
                "blocks",
                "container",
                "cursor",
                "follow",
                "format",
                "grep",
                "job",
                "limit",
                "namespace",
                "rank",
                "since",
                "tail",
                "until"
            ]
        );
        let other = named(&document["paths"][COMPLETENESS]["get"]);
        assert_eq!(other, ["namespace", "job", "attempt"]);
        let job = named(&document["paths"][JOB]["get"]);
        assert_eq!(job, ["namespace", "job"]);
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let path = reference.split('"').next().unwrap();
            assert!(document.pointer(path).is_some(), "{path}");
        }
        assert!(text.contains("/components/schemas/Stream"), "{text}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page();
        assert!(page.contains(COMPLETENESS));
        assert!(!page.contains("{{"));
        for outside in ["src=", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("</script>").count(), 2);
    }
}
