// Package track copies trainings and releases to an MLflow server, over its REST API.
//
// A [Run] is what MLflow shows about one training: a run in the experiment of the model, with a logged model. A [Model]
// is the registered model, with a version for each release and the alias production. [MLflow.PutRun] and
// [MLflow.PutModel] compare that with what MLflow has, and send what is missing or different. They may be repeated at
// any time: a run is found by a tag with its key before it is created, and so are logged models and versions.
//
// The server is not trusted. Its answers are limited in size and time, redirects are refused, and errors contain
// neither secrets nor more than a line of what it says. What AOB decides never depends on it.
package track
