#!/bin/sh
# An authority of this deployment's own, and for each name a key and a certificate for a year:
#   sh deploy/certificates.sh deploy/secrets postgres objects
# Run again, it renews the certificates; the authority stays. Then start those servers again. On Kubernetes, cert-manager does this.
set -eu
umask 077
mkdir -p "$1"
cd "$1"
shift
curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
if [ ! -f authority.crt ]; then
    openssl req -x509 $curve -days 3650 -subj "/CN=bgbatch" -keyout authority.key -out authority.crt
fi
for name; do
    openssl req $curve -subj "/CN=$name" -addext "subjectAltName=DNS:$name" -keyout "$name.key" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -copy_extensions copy -days 365 -CA authority.crt -CAkey authority.key -out "$name.crt"
    rm "$name.csr"
done
chmod 644 ./*.crt
