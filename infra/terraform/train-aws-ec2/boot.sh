# What the instance does. The module writes the AOB_ values before this text; both together are the user data.
#
# Whatever happens, the instance ends: a shutdown terminates it, and every way out of this script shuts it down.
# Three things do so without this script: shutdown's own timer, a timer of systemd at the expiry, which survives a
# reboot, and a watchdog of systemd, which ends an instance without a heartbeat.
#
# In S3, below the run's prefixes:
#
#	input/SHA256SUMS         lists all other files of input/; its own digest is AOB_MANIFEST
#	input/run.json           the trainer's argument
#	input/trainer/           the trainer's files
#	input/data.tar.*         what run.json names, in parts
#	input/environment.tar.*  the trainer's Python environment, in parts, if there is no image
#	output/                  what the trainer writes, copied every AOB_SECONDS seconds; a new attempt resumes from it
#	output/boot/ATTEMPT/     status.json: the trainer's heartbeat; trainer.log; boot.log;
#	                         exit.json: how the attempt ended, written last
set -eu
umask 022
PATH=$PATH:/usr/local/bin
export AWS_DEFAULT_REGION="$AWS_REGION" # as older versions of aws want it

log() { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"; }

# off ends the instance.
off() {
	log "shutdown: $*"
	shutdown -P now
}

# fuses sets the timers that end the instance without this script.
fuses() {
	shutdown -P "+$AOB_MINUTES"
	mkdir -p "$AOB_HOME/input" "$AOB_HOME/data" "$AOB_HOME/output" "$AOB_HOME/boot"
	touch "$AOB_HOME/heartbeat"
	cp "$0" "$AOB_HOME/boot.sh"
	unit expiry expire "OnCalendar=$(printf %s "$AOB_EXPIRES" | sed 's/T/ /; s/Z$/ UTC/')" "Persistent=true"
	unit watchdog watch "OnBootSec=1min" "OnUnitActiveSec=1min"
	systemctl daemon-reload
	systemctl enable --now "$AOB_HOME/aob-expiry.timer" "$AOB_HOME/aob-watchdog.timer"
}

# unit writes a timer and the service that it starts: this script with a verb.
unit() {
	printf '[Unit]\nDescription=AOB: %s\n[Service]\nType=oneshot\nExecStart=/bin/sh %s %s\n' "$1" \
		"$AOB_HOME/boot.sh" "$2" >"$AOB_HOME/aob-$1.service"
	printf '[Unit]\nDescription=AOB: %s\n[Timer]\n%s\n%s\n[Install]\nWantedBy=timers.target\n' "$1" "$3" "$4" \
		>"$AOB_HOME/aob-$1.timer"
	systemctl link "$AOB_HOME/aob-$1.service"
}

# watch is called every minute. Steps of the boot touch heartbeat; the trainer writes status.json.
watch() {
	if [ -z "$(find "$AOB_HOME/heartbeat" "$AOB_HOME/output/status.json" -mmin "-$AOB_SILENCE" 2>/dev/null)" ]; then
		off "no heartbeat for $AOB_SILENCE minutes"
	fi
}

# step says what is done next, here and in S3.
step() {
	log "$*"
	touch "$AOB_HOME/heartbeat"
	tell || log "the log was not copied"
}

# tell copies what says how this attempt goes.
tell() {
	aws s3 sync --only-show-errors --no-follow-symlinks "$AOB_HOME/boot" \
		"s3://$AOB_BUCKET/${AOB_OUTPUTS}boot/$AOB_ATTEMPT" --exclude exit.json
}

# upload copies the output, and after it the heartbeat as it was before: what that says is there, is there. Files that
# are being written have names with a dot in front. The old copy is removed first: the trainer may make its file a link,
# and cp writes through a link that is there, as root.
upload() {
	rm -f "$AOB_HOME/boot/status.json"
	[ ! -f "$AOB_HOME/output/status.json" ] || cp -P "$AOB_HOME/output/status.json" "$AOB_HOME/boot/status.json"
	aws s3 sync --only-show-errors --no-follow-symlinks "$AOB_HOME/output" "s3://$AOB_BUCKET/$AOB_OUTPUTS" \
		--exclude 'boot/*' --exclude status.json --exclude '.*' && tell
}

# fetch gets the inputs and checks that they are exactly what the run was approved with.
fetch() {
	step "fetch the inputs"
	aws s3 sync --only-show-errors "s3://$AOB_BUCKET/$AOB_INPUTS" "$AOB_HOME/input"
	cd "$AOB_HOME/input"
	printf '%s  SHA256SUMS\n' "$AOB_MANIFEST" | sha256sum --check --status - || {
		reason="input/SHA256SUMS is not the list that the run was started with"
		return 1
	}
	sha256sum --check --strict --quiet SHA256SUMS || {
		reason="an input differs from input/SHA256SUMS"
		return 1
	}
	[ "$(find . -type f | wc -l)" = "$(($(wc -l <SHA256SUMS) + 1))" ] || {
		reason="there are inputs that input/SHA256SUMS does not list"
		return 1
	}
	cd "$AOB_HOME"
	step "unpack the inputs"
	for name in data environment; do
		[ -f "input/$name.tar.000" ] || continue
		mkdir -p "$name"
		for part in input/"$name".tar.*; do # the disk need not hold it twice
			cat "$part" && rm "$part"
		done | tar -xf - -C "$name"
	done
	step "fetch what an earlier attempt left"
	aws s3 sync --only-show-errors "s3://$AOB_BUCKET/$AOB_OUTPUTS" "$AOB_HOME/output" --exclude 'boot/*'
	rm -f "$AOB_HOME/output/status.json"
	chown -R "$AOB_USER" "$AOB_HOME/output"
}

# train starts the trainer, without network and without the instance's credentials, and returns its exit status. Packages
# keep what they need for themselves in HOME and /tmp, which nobody else has.
train() {
	if [ -n "$AOB_IMAGE" ]; then
		step "fetch the image"
		registry=${AOB_IMAGE%%/*}
		case $registry in
		*.dkr.ecr.*) aws ecr get-login-password | docker login --username AWS --password-stdin "$registry" || exit 125 ;;
		esac
		docker pull --quiet "$AOB_IMAGE" || exit 125 # as docker does where the fault is not the program's
		case $registry in
		*.dkr.ecr.*) docker logout "$registry" || exit 125 ;; # or the password stays on the disk
		esac
		step "train"
		exec docker run --rm --name aob-trainer --gpus all --network none --cap-drop ALL \
			--security-opt no-new-privileges --shm-size 8g --user "$(id -u "$AOB_USER"):$(id -g "$AOB_USER")" \
			--volume "$AOB_HOME/input:$AOB_HOME/input:ro" --volume "$AOB_HOME/data:$AOB_HOME/data:ro" \
			--volume "$AOB_HOME/output:$AOB_HOME/output" \
			--env HOME=/tmp --env USER=aob --env LANG=C.UTF-8 --workdir "$AOB_HOME/output" \
			--entrypoint python3 "$AOB_IMAGE" "$AOB_HOME/input/trainer/train.py" "$AOB_HOME/input/run.json" \
			>>"$AOB_HOME/boot/trainer.log" 2>&1
	fi
	"$AOB_HOME/environment/bin/python" -c '' || {
		log "the environment's interpreter $(readlink "$AOB_HOME/environment/bin/python") does not run on this image"
		exit 126
	}
	# The first program on a GPU makes its devices with a program that becomes root, which the trainer's may not.
	! command -v nvidia-modprobe >/dev/null || nvidia-modprobe -u -c 0 || log "the devices of the GPU were not made"
	step "train"
	exec systemd-run --quiet --pipe --wait --collect --unit aob-trainer --uid "$AOB_USER" \
		--property PrivateNetwork=yes --property NoNewPrivileges=yes --property ProtectSystem=strict \
		--property PrivateTmp=yes --setenv HOME=/tmp --setenv USER=aob --setenv LANG=C.UTF-8 \
		--property "ReadWritePaths=$AOB_HOME/output" --property "WorkingDirectory=$AOB_HOME/output" \
		"$AOB_HOME/environment/bin/python" "$AOB_HOME/input/trainer/train.py" "$AOB_HOME/input/run.json" \
		>>"$AOB_HOME/boot/trainer.log" 2>&1
}

# stop lets the trainer write its checkpoint.
stop() {
	if [ -n "$AOB_IMAGE" ]; then docker stop --time 90 aob-trainer; else systemctl stop aob-trainer; fi
}

# interrupted asks whether a spot instance is about to be taken away, two minutes before.
interrupted() {
	at=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest
	token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$at/api/token") || return 1
	curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$at/meta-data/spot/instance-action"
}

# attend copies the output while the trainer runs, and returns the trainer's exit status.
attend() {
	last=$(date +%s)
	while kill -0 "$1" 2>/dev/null; do
		sleep 2
		if interrupted; then
			reason="the spot instance was interrupted"
			log "$reason"
			stop || true
			break
		fi
		if [ "$(($(date +%s) - last))" -ge "$AOB_SECONDS" ]; then
			upload || log "the output was not copied; it will be tried again"
			last=$(date +%s)
		fi
	done
	wait "$1"
}

# finish is the only way out. It leaves in S3 what there is, and ends the instance.
finish() {
	code=$?
	trap '' EXIT HUP INT TERM
	set +e
	log "exit $code: ${reason:-the trainer ended}"
	printf '{"code":%d,"reason":"%s"}\n' "$code" "${reason:-the trainer ended}" >"$AOB_HOME/boot/exit.json"
	upload # if this hangs, the watchdog or a timer ends the instance
	aws s3 cp --only-show-errors "$AOB_HOME/boot/exit.json" "s3://$AOB_BUCKET/${AOB_OUTPUTS}boot/$AOB_ATTEMPT/exit.json"
	off "exit $code"
}

case ${1:-boot} in
boot)
	trap finish EXIT
	trap 'reason="the boot script was ended"; exit 143' HUP INT TERM
	reason="the instance could not be set up"
	fuses
	exec >>"$AOB_HOME/boot/boot.log" 2>&1
	reason="the inputs could not be fetched"
	fetch
	reason=
	train &
	attend $!
	;;
expire) off "expired" ;;
watch) watch ;;
esac
