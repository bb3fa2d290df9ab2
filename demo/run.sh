#!/bin/bash
# run.sh SLUICE starts the gateway on demo/sluice.yaml with the upstreams that it names, prints what to try, and ends them all
# when it is ended or one of them is. It needs no privilege and leaves nothing behind.
set -euo pipefail
sluice=$(realpath "${1:?usage: run.sh SLUICE}")
cd "$(dirname "${BASH_SOURCE[0]}")"

folder=$(mktemp -d "${TMPDIR:-/tmp}/sluice-demo.XXXXXX")
pids=()
end() {
	trap - EXIT
	trap '' INT TERM HUP
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$folder"
}
trap end EXIT
trap 'exit 0' INT TERM HUP

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
await() { # PORT PID
	for _ in {1..100}; do
		if answers "$1"; then return; fi
		if ! kill -0 "$2" 2>/dev/null; then break; fi
		sleep 0.05
	done
	echo "demo: nothing answers on 127.0.0.1:$1" >&2
	exit 1
}

# Somebody else's server would be taken for the demo's.
for port in 8080 9001 9002; do
	if answers $port; then
		echo "demo: 127.0.0.1:$port is in use" >&2
		exit 1
	fi
done

for port in 9001 9002; do
	"$sluice" demo-upstream "127.0.0.1:$port" &
	pids+=($!)
	await $port $!
done
sed "s|unix:/tmp/sluice-demo/|unix:$folder/|" sluice.yaml >"$folder/sluice.yaml"
"$sluice" run -c "$folder/sluice.yaml" &
pids+=($!)
await 8080 $!

cat <<TEXT

Sluice serves demo/sluice.yaml on 127.0.0.1:8080. In another terminal:

  curl -i http://127.0.0.1:8080/                 one of two upstreams, in turn
  curl -i "http://127.0.0.1:8080/api/users?id=7" an upstream that sees /users?id=7
  curl -i http://127.0.0.1:8080/hello            the gateway itself

  $sluice ctl --admin unix:$folder/admin.sock status

Ctrl-C ends it.
TEXT
wait -n "${pids[@]}"
