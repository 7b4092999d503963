#!/bin/sh
# Everything secret that docker-compose.yaml refers to, made at random into one folder; what is there already stays:
#   sudo sh deploy/first-start.sh deploy/secrets
# On Kubernetes a secrets manager does this: deploy/kubernetes/base/secrets.md.
set -eu
umask 077
here=$(dirname "$0")
mkdir -p "$1"
folder=$(cd "$1" && pwd)

random() { openssl rand -hex 24; }
# Each password once, in a file of its own, so that a run that was broken off goes on with the same ones.
word() { [ -s "$folder/.$1" ] || random > "$folder/.$1"; cat "$folder/.$1"; }
new=$folder/.new
# Moved when it is whole: a run that is broken off leaves no half of a file, which the next one would keep.
keep() { [ -e "$folder/$1" ] || mv "$new" "$folder/$1"; }
records() { echo "BGBATCH_RECORDS_URL=postgresql+psycopg://$1:$2@postgres/bgbatch"; }

[ -e "$folder/postgres.crt" ] && [ -e "$folder/objects.crt" ] || sh "$here/certificates.sh" "$folder" postgres objects
chown 999 "$folder/postgres.key" # the image's user of PostgreSQL, who wants a key of its own

for name in s3 engine ray owner prefect portal dispatcher cleanup; do
    word "$name" > /dev/null # all of them first: where one cannot be made, this ends here, not in a file without it
done

s3="BGBATCH_S3_KEY=bgbatch
BGBATCH_S3_SECRET=$(word s3)"
engine="PREFECT_API_AUTH_STRING=bgbatch:$(word engine)"
ray="RAY_AUTH_TOKEN=$(word ray)"

word owner > "$new"; keep postgres_password
printf '%s\n' "$s3" "$(records bgbatch_owner "$(word owner)")" "PGPASSWORD=$(word owner)" > "$new"; keep owner.env
printf '%s\n' "$s3" > "$new"; keep objects.env
printf '%s\n' "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect:$(word prefect)@postgres/prefect" \
    "PREFECT_SERVER_API_AUTH_STRING=bgbatch:$(word engine)" > "$new"; keep prefect-server.env
printf '%s\n' "$s3" "$ray" > "$new"; keep worker.env
printf '%s\n' "$s3" "$(records portal "$(word portal)")" > "$new"; keep portal.env
printf '%s\n' "$s3" "$(records dispatcher "$(word dispatcher)")" "$engine" "$ray" > "$new"; keep work.env
printf '%s\n' "$s3" "$(records cleanup "$(word cleanup)")" > "$new"; keep cleanup.env

# A login for each process, in one of the roles of postgres/roles.sql; run again, it sets the passwords again.
{
    while read -r login role; do
        echo "SELECT 'CREATE ROLE $login LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$login') \\gexec"
        echo "ALTER ROLE $login PASSWORD '$(word "$login")';"
        [ -z "$role" ] || echo "GRANT $role TO $login;"
    done <<LOGINS
portal bgbatch_portal
dispatcher bgbatch_portal
cleanup bgbatch_cleanup
prefect
LOGINS
    echo "GRANT prefect TO CURRENT_USER;" # else an owner who is no superuser may not make a database for it
    echo "SELECT 'CREATE DATABASE prefect OWNER prefect' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'prefect') \\gexec"
} > "$new"; keep logins.sql
rm -f "$new"
echo "$folder holds all secrets. Next: docs/runbook.md, \"Start on one machine\", step 3."
