-- The zones in which most trips begin. A template, as the fields of tasks are.
select z."Borough" as borough, z."Zone" as zone, count(*) as trips, round(avg(t.total_amount), 2) as average
from lake.raw.{{ params.color }}_tripdata t
join lake.raw.zones z on z."LocationID" = t."PULocationID"
group by 1, 2
