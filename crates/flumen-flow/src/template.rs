//! Templates in the fields of tasks: Jinja, with the names that Airflow's users know.
