-- A database and an owner for each server. The official image of PostgreSQL runs this when its volume is new;
-- elsewhere, with both variables exported: psql --set ON_ERROR_STOP=1 --file deploy/databases.sql
\getenv mlflow_password MLFLOW_DB_PASSWORD
\getenv prefect_password PREFECT_DB_PASSWORD
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE prefect OWNER prefect;
REVOKE ALL ON DATABASE mlflow, prefect FROM PUBLIC;
