// Package reconciler trains, judges and releases the models that people propose in
// pull requests, and rolls the releases on the main branch out to fleets.
//
// [Reconciler.Reconcile] takes one turn of the loop:
//
//	observe  read git, the forge, runs, evidence, devices and the ledger
//	plan     decide: a pure function from what was observed to steps and reports
//	act      take the steps; taking one twice has the same effect as taking it once
//	report   post the reports on the forge, if they differ from what is there
//
// The loop is level-triggered: each turn observes everything again, so a lost webhook, a crash or an upgrade costs a
// turn and nothing else. The log shows beside each step why the turn was due. Slow work is a run: a detached process
// that the loop starts and observes. Package work is what a run does.
//
// A turn never waits for the network. Package poll reads git and the forge beside it, and queues send statuses,
// comments and pushes. A turn uses the last answers, so fleets go on while the forge does not answer. Tests call these
// parts themselves, one step at a time.
//
// The packages, from the innermost outwards. imports_test.go checks this list.
//
//	delivery   the types of the domain, keys and documents; standard library only
//
//	intent     parse YAML files into these types; complaints have line and column
//	coco       COCO detection metrics and the paired bootstrap
//	code       the codes of facts, with a sentence for each
//	gate       judge measurements: a verdict, with facts for every check
//	rollout    decide which devices get a release
//	plan       all decisions
//	retention  what the server keeps of what it has stored, and why
//	explain    the chain of facts from a commit to a device
//	words      write facts as text: statuses, comments, terminal
//
//	provenance documents about a release: SLSA provenance, ML-BOM, model card
//	profile    hardware profiles: how a machine runs a model; keys of engines, command lines of trtexec
//
//	durable    files that survive a crash, and locks
//	trust      ed25519 keys and signed envelopes
//
//	git        a bare mirror, read by hash, written with objects
//	forge      pull requests, statuses and comments: a local folder, Gitea, GitHub, GitLab
//	dataset    digest and check a dataset, make the training input
//	cloud      read buckets of S3, and end what runs left in an account of AWS
//	trainer    install the trainers of a server
//	store      what one run leaves for other runs and for readers
//	run        slow work in detached processes, with a journal
//	terraform  apply a module, and train with it
//	work       what a run does: check, train, evaluate, compare
//	stage      take one stage of a model without a server; reproduce a release
//	detect     run models in a child process: inspect, evaluate, serve
//	engine     build TensorRT engines with trtexec, and keep them
//	artifact   bundles and statements about them, as OCI artifacts
//	evidence   signed statements about bundles
//	fleet      publish documents for devices, receive their reports
//	ledger     a database of what cannot be observed again: approvals, rollout clocks, posts
//	picture    draw the errors of a model
//	track      copy trainings and releases to an MLflow server
//	web        the API of the commands, webhooks, metrics, pictures
//
//	turn       what parts of a turn share: clock, troubles, when the next turn is due
//	queue      slow calls beside the loop, with retries
//	poll       read git and the forge beside the loop
//	commits    read files and history of commits
//	history    the history of main: releases, quarantine, lost gates
//	pulls      read pull requests, and compute the result of merging them
//	post       post statuses and comments, and remember what is on the forge
//	outbox     keep what trackers should show, and tell them beside the loop
//	shelf      list what the server has stored, and remove what nothing needs
//	archive    read the evidence for plans; check the store for lost files
//	view       answer the commands
//
//	edge       the same loop on a device
//	serve      serve a detector over HTTP
//	onnx       ONNX Runtime, by cgo, in aob-detect alone
//	turbojpeg  libjpeg-turbo, by cgo, in aob-detect alone
package reconciler
