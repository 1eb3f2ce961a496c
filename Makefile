# make demo         the whole story on this machine, after installing what it needs
# make demo-aws     the story of a model that trains on a GPU instance, against moto: no account (five minutes)
# make check        what a change needs: formatting, vet, staticcheck, the fast tests (under a minute)
# make test         everything that passes in CI
# make test-rfdetr  the trainer rfdetr on the real package (17 minutes of a core; 7 GB of disk, once)
# make test-aws     trainings on instances of EC2 against moto: lost ones, the contract suite, a pull request
# make bench        the figures of BENCHMARKS.md
# make bench-coco   aob eval beside other evaluators, where Python can import them
# make bench-data   aob data check on 100,000 images beside sha256sum (2 GB of disk)
# make bench-eval   an evaluation over 5,000 images beside a bare loop (three minutes)
# make bench-serve  aob-detect serve beside a bare loop, FastAPI and Node (five minutes)
# make test-swaps   a hundred changes of the model under load: none loses or delays a request (ten minutes)
# make test-mutations  1,000 hostile models, 10,000 hostile pictures and requests (half an hour)
# make soak         aob-detect serve at full load for SOAK=1h: nothing leaks, and the metrics are right
# make bench-hostile  a promotion beside attacks (ten minutes)
# make test-seeds   2,000 random orders of events against the loop (12 minutes of a core)
# make test-security  every cell of docs/security.md, on a real Gitea and on the local forge
# make test-aws-kills  trainings on EC2 of which something is killed at each of 77 moments (a quarter of an hour)
# make test-tofu   the tests of Terraform modules with OpenTofu, which is built once (five minutes of a core)
# make test-faults  a fleet behind faulty proxies, for ten minutes
# make bench-intervals  whether intervals hold what they promise, by simulation (an hour of a core)
# make bench-year   a year of one server, of which what nothing needs is removed (twenty minutes; AOB_YEAR promotions)
# make bench-devices  a promotion beside 10,000 devices (three minutes)
# make test-retention-kills  a server that is killed at every step while it removes things
# make build        bin/aob, bin/aob-agent, bin/aob-detect

SHELL := /bin/sh
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/aob
export PATH := $(PATH):$(CACHE)/bin

.PHONY: bench-growth bench-year bench-devices test-retention-kills demo demo-aws check test test-rfdetr test-aws test-aws-rfdetr rfdetr-epochs test-seeds test-faults test-security test-tofu test-aws-kills bench bench-data bench-serve serve-bundle test-swaps test-mutations soak bench-hostile bench-coco bench-intervals build tools test-tools schemas bench-eval

build:
	CGO_ENABLED=0 go build -trimpath -o bin/aob ./cmd/aob
	CGO_ENABLED=0 go build -trimpath -o bin/aob-agent ./cmd/aob-agent
	CGO_ENABLED=1 go build -trimpath -o bin/aob-detect ./cmd/aob-detect

tools:
	tools/install.sh

# What only tests need: a real Gitea, built from source once, and tools in Python. Tests skip where one of the latter is
# missing.
test-tools: tools
	tools/gitea/install.sh >/dev/null
	tools/versitygw/install.sh >/dev/null
	for tool in mlflow great-expectations roboflow moto awscli checkov prefect airflow papers serveclients gitlab; do \
		tools/venv.sh $$tool >/dev/null || echo "$$tool is not installed; the tests that need it skip" >&2; done

demo: tools build
	go run ./demo

demo-aws: tools build
	tools/versitygw/install.sh >/dev/null
	for tool in moto awscli; do tools/venv.sh $$tool >/dev/null || exit 1; done
	AOB_DEMO_AWS=1 go test ./demo -run TestDemoOnAWS -count=1 -v -timeout 30m

# Everything is cached by what it reads, so a change costs what depends on it. The slow tests skip with -short.
check:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go test -short -timeout 5m ./...

test: test-tools build
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go test -timeout 30m ./...
	cd tools/awsprovider && go vet ./... && go test ./...
	/usr/bin/python3 -m unittest discover -s trainers/tiny
	/usr/bin/python3 -m unittest discover -s trainers/import
	/usr/bin/python3 -m unittest discover -s trainers/rfdetr -p test_parts.py

test-rfdetr: tools build rfdetr-epochs
	/usr/bin/python3 -m unittest discover -v -s trainers/rfdetr
	AOB_RFDETR=1 go test ./reconciler/detect ./e2e -run "TestTrainerContract|TestRFDETR" -v -timeout 2h

test-aws: test-tools build
	AOB_AWS=1 go test ./reconciler/terraform ./e2e -run "TestMachines/train-aws-ec2|TestTrainerOnEC2|TestLostInstances|TestEC2$$|TestNothingStartsUnpaid" \
		-v -timeout 1h

# The same pull request with RF-DETR on the real package, whose environment goes through S3 (6 GB).
test-aws-rfdetr: test-tools build
	bin/aob trainer install rfdetr@1.11.2
	AOB_AWS=1 AOB_RFDETR=1 go test ./e2e -run "TestEC2RFDETR$$" -v -timeout 2h

# Environments of old versions of rfdetr, made once (1 GB each).
rfdetr-epochs: build
	bin/aob trainer install rfdetr@1.11.2
	for version in 1.4.3 1.9.1; do trainers/rfdetr/test_epochs/install.sh $$version || exit 1; done

bench: test-tools build
	go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./reconciler/...

# How the cost of a turn grows with models, pull requests and releases.
bench-growth:
	go test -run '^$$' -bench 'BenchmarkGrowth|BenchmarkTogether' -benchtime 1x -timeout 60m ./reconciler

# The files are small, and there are very many: a file system in memory spares the disk.
bench-year:
	AOB_YEAR=$(or $(AOB_YEAR),12500) go test ./cmd/aob -run 'TestYear$$' -count=1 -v -timeout 2h

bench-devices: tools
	AOB_DEVICES=1 go test ./e2e -run TestPromotionBesideDevices -count=1 -v -timeout 30m

test-retention-kills:
	AOB_KILLS=all go test ./reconciler/shelf ./reconciler/artifact ./reconciler/engine -run 'Killed|Cache' -count=1 -v

# The case is made by make_case.py of the shared data, which lies beside the
# repository or in AOB_SHARED; COCO_CASE names another.
AOB_SHARED ?= ../shared
COCO_CASE ?= $(CACHE)/coco-seed7
bench-coco: build
	@test -e $(COCO_CASE)/dt.json || test -e $(AOB_SHARED)/coco/make_case.py || { echo 'no case: name a folder with gt.json and dt.json in COCO_CASE'; exit 1; }
	@test -e $(COCO_CASE)/dt.json || /usr/bin/python3 $(AOB_SHARED)/coco/make_case.py --seed 7 $(COCO_CASE)
	/usr/bin/python3 reconciler/coco/testdata/peers.py bin/aob $(COCO_CASE)
	@test ! -e $(AOB_SHARED)/coco/make_case.py || /usr/bin/python3 reconciler/coco/testdata/peers.py --growth bin/aob $(AOB_SHARED)/coco/make_case.py

bench-data: build
	go run ./tools/databench -aob bin/aob $(BENCH_DATA)

# The model is trained on the dataset of the shared data, once, or named by SERVE_BUNDLE; the pictures by SERVE_IMAGES.
SERVE_BUNDLE ?= $(CACHE)/serve-bundle
SERVE_IMAGES ?= $(AOB_SHARED)/data/bccd/test/*.jpg
EVAL_IMAGES ?= $(AOB_SHARED)/data/bccd/*/*.jpg
bench-eval: tools build
	@test -e $(SERVE_BUNDLE)/golden.bin || tools/servebench/bundle.sh $(AOB_SHARED)/data/bccd $(SERVE_BUNDLE)
	go run ./tools/evalbench -bundle $(SERVE_BUNDLE) -images '$(EVAL_IMAGES)' -limit 1.1

bench-serve: tools build
	@test -e $(SERVE_BUNDLE)/golden.bin || tools/servebench/bundle.sh $(AOB_SHARED)/data/bccd $(SERVE_BUNDLE)
	tools/venv.sh servepeers >/dev/null
	cd tools/servepeers && npm ci --ignore-scripts --no-audit --no-fund >/dev/null
	go run ./tools/servebench -bundle $(SERVE_BUNDLE) -images '$(SERVE_IMAGES)'

serve-bundle: tools build
	@test -e $(SERVE_BUNDLE)/golden.bin || tools/servebench/bundle.sh $(AOB_SHARED)/data/bccd $(SERVE_BUNDLE)
	go build -o bin/servesoak ./tools/servesoak

test-swaps: serve-bundle
	bin/servesoak -bundle $(SERVE_BUNDLE) -images '$(SERVE_IMAGES)' swaps

test-mutations: serve-bundle
	bin/servesoak -bundle $(SERVE_BUNDLE) -images '$(SERVE_IMAGES)' mutations

soak: serve-bundle
	bin/servesoak -bundle $(SERVE_BUNDLE) -images '$(SERVE_IMAGES)' -for $(or $(SOAK),1h) soak

bench-hostile: test-tools
	AOB_HOSTILE=1 go test ./e2e -run TestHostile -v -timeout 2h

test-seeds:
	AOB_SEEDS=$(or $(AOB_SEEDS),1:2000) go test ./reconciler -run AnyOrder -v -timeout 2h

test-security: test-tools
	AOB_SECURITY=1 go test ./e2e -run 'TestSecurityTable|TestEditedComments|TestDeletedFork' -v -timeout 2h

test-aws-kills: test-tools
	AOB_KILLS=all go test ./reconciler/terraform ./e2e -run "TestKilledOnAWS|TestServeKilledOnEC2|TestMachineKilledOnEC2" \
		-p 1 -count=1 -v -timeout 2h

test-tofu: test-tools
	AOB_TERRAFORM=$$(tools/tofu/install.sh) go test ./reconciler/terraform -count=1 -timeout 30m

test-faults: tools
	AOB_FAULTS=$(or $(AOB_FAULTS),10m) go test ./e2e -run TestFaults -v -timeout 1h

bench-intervals:
	go test ./reconciler/coco -run 'TestIntervals$$' -v -timeout 0 -intervals

schemas: build
	for kind in model gate fleet release quarantine server trainer signature; do bin/aob schema $$kind > schemas/$$kind.json; done
