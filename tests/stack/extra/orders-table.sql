-- Something for the workload to read: tests need one privilege that a live user has.
CREATE TABLE orders (id integer PRIMARY KEY, item text NOT NULL);
INSERT INTO orders VALUES (1, 'first order');
GRANT SELECT ON orders TO orders_app;
