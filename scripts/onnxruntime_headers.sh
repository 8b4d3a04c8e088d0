#!/usr/bin/env bash
# Prints the folder of onnxruntime's C++ headers, which the programs of examples/cpp need. Where they are not installed,
# Debian's package of them is unpacked into FOLDER; nothing is installed. Debian 12 has no such package, so it is that
# of Debian 13, from the mirror that is set up: headers fit everywhere, and the library is that of the Python package.
# Usage: onnxruntime_headers.sh FOLDER
set -euo pipefail
folder=${1:?usage: onnxruntime_headers.sh FOLDER}

for include in /usr/include/onnxruntime /usr/local/include/onnxruntime "$folder/usr/include/onnxruntime"; do
    if [ -f "$include/onnxruntime_cxx_api.h" ]; then
        echo "$include"
        exit
    fi
done

apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/sources" "$apt/lists/partial" "$apt/cache/archives/partial" "$folder"
chmod 755 "$apt"
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.*; do
    [ -f "$file" ] && sed 's/bookworm/trixie/g' "$file" > "$apt/sources/$(basename "$file")"
done
options=(-qq -o "Dir::Etc::sourcelist=-" -o "Dir::Etc::sourceparts=$apt/sources" -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=root" -o "Acquire::Languages=none")
apt-get "${options[@]}" update > "$apt/log" 2>&1 || { cat "$apt/log" >&2; exit 1; }
(cd "$apt" && apt-get "${options[@]}" download libonnxruntime-dev) >&2
dpkg-deb -x "$apt"/libonnxruntime-dev_*.deb "$folder"
echo "$folder/usr/include/onnxruntime"
