-- Something for the workload to read: tests need one privilege that a live user has, and
-- that the users of the other state do not have.
CREATE TABLE orders (id integer PRIMARY KEY, item text NOT NULL);
INSERT INTO orders VALUES (1, 'first order');
GRANT SELECT ON orders TO orders_app, orders_reserve;
CREATE TABLE charges (id integer PRIMARY KEY, amount integer NOT NULL);
GRANT SELECT, INSERT ON charges TO orders_charge;
