-- Who may do what in the records. Run as the owner, after the first upgrade, and again after each:
--   psql "$OWNER_URL" -f deploy/postgres/roles.sql
-- Roles cannot sign in themselves: create a login for each process and GRANT it one of them. Ray's workers get none.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['bgbatch_portal', 'bgbatch_cleanup'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
    -- Once the Prefect worker's, which is gone. Not by DROP OWNED: an owner who is no superuser may not.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'bgbatch_compactor') THEN
        REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bgbatch_compactor;
        REVOKE ALL ON SCHEMA public FROM bgbatch_compactor;
        BEGIN
            DROP ROLE bgbatch_compactor;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            NULL; -- another database of this server has not been upgraded yet
        END;
    END IF;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO bgbatch_portal, bgbatch_cleanup;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bgbatch_portal, bgbatch_cleanup;

-- The portal and the dispatcher: everything but the schema. What is append-only stays so, for them and for the owner.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO bgbatch_portal;
REVOKE UPDATE, DELETE, TRUNCATE ON consent_events, receipts FROM bgbatch_portal;
REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM bgbatch_portal;

-- The cleanup: reads by name what it needs, so that a new table is closed to it; marks what it purged, writes receipts. It may
-- withdraw (restored ledgers learn of withdrawals), and sees no person, name, place, key, session or webhook.
GRANT SELECT ON alembic_version, batches, consent_events, receipts, erasures, cleanups, canaries, admissions, merged_files,
    pulled_grants TO bgbatch_cleanup;
GRANT UPDATE ON batches, canaries, admissions, merged_files TO bgbatch_cleanup;
GRANT INSERT ON consent_events, receipts TO bgbatch_cleanup;
GRANT INSERT, UPDATE, DELETE ON erasures, cleanups TO bgbatch_cleanup;
