/** SQLAlchemy's Inspector and reflection over the whole of it, each line one question. Debian's python3-sqlalchemy with psycopg2. */
export const INSPECTOR = `
import pprint, warnings, sqlalchemy as sa
from sqlalchemy.schema import CreateIndex
warnings.simplefilter("ignore")
engine = sa.create_engine("postgresql+psycopg2://")
def asked(what, ask):
    try: print(what, pprint.pformat(ask(), width=400, compact=True).replace("\\n", " "))
    except Exception as error: print("REFUSED" if "Sluice" in str(error) else "FAILED", what, str(error).split("\\n")[0])
with engine.connect() as connection:
    inspector = sa.inspect(connection)
    dialect = engine.dialect
    asked("get_schema_names", inspector.get_schema_names)
    asked("default_schema_name", lambda: inspector.default_schema_name)
    for schema in (None, "public", "hr"):
        for name in ("get_table_names", "get_view_names", "get_sequence_names", "get_foreign_table_names"):
            asked("%s %s" % (name, schema), lambda: getattr(inspector, name)(schema))
        asked("get_enums %s" % schema, lambda: inspector.get_enums(schema))
        asked("get_view_names materialized %s" % schema, lambda: inspector.get_view_names(schema, include=("plain", "materialized")))
    asked("get_enums *", lambda: inspector.get_enums("*"))
    asked("_load_domains", lambda: sorted((dialect._load_domains(connection)).items()))
    relations = [("public", n) for n in inspector.get_table_names("public") + inspector.get_view_names("public", include=("plain", "materialized")) + ["away"]] + [("hr", "people"), ("pg_catalog", "pg_class")]
    for schema, table in relations:
        for name in ("get_columns", "get_pk_constraint", "get_foreign_keys", "get_indexes", "get_unique_constraints", "get_check_constraints", "get_table_comment", "get_table_options", "get_table_oid"):
            if hasattr(inspector, name): asked("%s %s.%s" % (name, schema, table), lambda: getattr(inspector, name)(table, schema))
        asked("has_table %s.%s" % (schema, table), lambda: inspector.has_table(table, schema))
    asked("has_table without schema", lambda: (inspector.has_table("customers"), inspector.has_table("nothing")))
    asked("has_sequence", lambda: (dialect.has_sequence(connection, "counter"), dialect.has_sequence(connection, "counter", schema="hr")))
    asked("has_schema", lambda: (dialect.has_schema(connection, "hr"), dialect.has_schema(connection, "nothing")))
    asked("has_type", lambda: (dialect.has_type(connection, "mood"), dialect.has_type(connection, "mood", schema="public")))
    for view in inspector.get_view_names("public", include=("plain", "materialized")):
        asked("get_view_definition %s" % view, lambda: inspector.get_view_definition(view, "public"))
    for schema in (None, "hr"):
        data = sa.MetaData()
        asked("reflect %s" % schema, lambda: data.reflect(connection, schema=schema, views=True, resolve_fks=True))
        for name in sorted(data.tables):
            table = data.tables[name]
            print(name, [(repr(c.type), c.name, c.nullable, str(c.server_default and c.server_default.arg if hasattr(c.server_default, "arg") else c.server_default is not None), c.comment) for c in table.columns], sorted(str(k.name) for k in table.constraints), sorted(str(CreateIndex(i).compile(dialect=dialect)) for i in table.indexes), table.comment)
    asked("server_version_info", lambda: (dialect.server_version_info, dialect.get_isolation_level(connection.connection.dbapi_connection), dialect._get_default_schema_name(connection)))
print("done")
`;

/** Reads of the object-relational mapper, and what a unit of work writes where it may. The first argument says whether it does. */
export const MAPPER = `
import sys, warnings, sqlalchemy as sa
from sqlalchemy import orm, func, select, text
from sqlalchemy.dialects.postgresql import insert
warnings.simplefilter("ignore")
engine = sa.create_engine("postgresql+psycopg2://", pool_pre_ping=True)
Base = orm.declarative_base()
class Region(Base):
    __tablename__ = "regions"
    id = sa.Column(sa.Integer, primary_key=True); name = sa.Column(sa.Text)
class Customer(Base):
    __tablename__ = "customers"
    id = sa.Column(sa.Integer, primary_key=True); name = sa.Column(sa.Text); email = sa.Column(sa.Text); ssn = sa.Column(sa.String(20))
    mood = sa.Column(sa.Enum("sad", "ok", name="mood")); region_id = sa.Column("region", sa.ForeignKey("regions.id")); amount = sa.Column(sa.Integer)
    region = orm.relationship(Region, backref="customers"); orders = orm.relationship("Order", order_by="Order.id", backref="buyer", cascade="all, delete-orphan")
class Order(Base):
    __tablename__ = "orders"
    id = sa.Column(sa.BigInteger, sa.Identity(always=True), primary_key=True); customer = sa.Column(sa.ForeignKey("customers.id")); region = sa.Column(sa.ForeignKey("regions.id"))
    item = sa.Column(sa.Text); amount = sa.Column(sa.Numeric); at = sa.Column(sa.DateTime(timezone=True))
def asked(what, ask):
    try: print(what, ask())
    except Exception as error: session.rollback(); print("REFUSED" if "Sluice" in str(error) else "FAILED", what, str(error).split("\\n")[0])
def row(c): return (c.id, c.name, c.email, c.ssn, c.mood, c.amount, c.region.name, [(o.id, o.item, str(o.amount)) for o in c.orders])
session = orm.Session(engine)
ask = session.query
for name, option in (("lazy", orm.lazyload), ("joined", orm.joinedload), ("selectin", orm.selectinload), ("subquery", orm.subqueryload)):
    asked("loading " + name, lambda: [row(c) for c in ask(Customer).options(option(Customer.orders), option(Customer.region)).order_by(Customer.id)])
    asked("loading a page " + name, lambda: [row(c) for c in ask(Customer).options(option(Customer.orders), option(Customer.region)).order_by(Customer.id).limit(2).offset(1)])
    session.expunge_all()
asked("get", lambda: row(session.get(Customer, 3)))
asked("refresh", lambda: session.refresh(session.get(Customer, 3)))
asked("join", lambda: ask(Customer.name, Order.item, Region.name).join(Customer.orders).join(Customer.region).filter(Region.name == "north").order_by(Order.id).all())
asked("aliased", lambda: [tuple(r) for r in session.execute(select(Customer.id, orm.aliased(Region).name).outerjoin(Customer.region).where(Customer.id < 0))])
asked("any, has", lambda: [c.id for c in ask(Customer).filter(Customer.orders.any(Order.amount > 2), Customer.region.has(name="north")).order_by(Customer.id)])
asked("exists", lambda: ask(ask(Customer).filter_by(name="name 1").exists()).scalar())
asked("in", lambda: [c.name for c in ask(Customer).filter(Customer.id.in_([1, 2, 3])).order_by(Customer.name)])
asked("count of keys", lambda: ask(func.count(Customer.id)).scalar())
asked("count of a query of rows", lambda: ask(Customer).filter(Customer.id > 1).count())
asked("count of a query of names", lambda: ask(Customer.name).count())
asked("group", lambda: ask(Region.name, func.sum(Order.amount), func.max(Order.at).isnot(None)).join(Order, Order.region == Region.id).group_by(Region.name).having(func.count() > 1).all())
asked("window", lambda: ask(Order.id, func.row_number().over(partition_by=Order.region, order_by=Order.amount.desc())).order_by(Order.id).all())
asked("with", lambda: session.execute(select(func.count()).select_from(select(Order.customer).where(Order.amount > 1).cte("few"))).scalar())
asked("union", lambda: sorted(session.execute(select(Customer.name).union_all(select(Region.name))).scalars().all()))
asked("distinct", lambda: sorted(session.execute(select(Customer.region_id).distinct()).scalars().all()))
asked("a subquery with a masked column", lambda: [tuple(r) for r in session.execute(select(select(Customer.id, Customer.email).order_by(Customer.id).limit(2).subquery()))])
asked("from_self of rows", lambda: sorted(c.id for c in session.execute(select(orm.aliased(Customer, select(Customer).subquery()))).scalars()))
asked("lateral", lambda: session.execute(text("select r.name, o.item from regions r left join lateral (select item from orders where region = r.id order by id limit 1) o on true order by 1")).all())
asked("stream", lambda: sum(1 for _ in session.execute(select(Order).execution_options(stream_results=True, yield_per=2)).scalars()))
asked("for update", lambda: [o.id for o in ask(Order).with_for_update(read=True, of=Order).filter(Order.id == 1)])
asked("a lookup by a masked column", lambda: ask(Customer).filter_by(email="1@corp.example").first())
asked("rows in the order of a masked column", lambda: ask(Customer).order_by(Customer.email).first())
session.rollback()
if sys.argv[1:] == ["writes"]:
    def write():
        with orm.Session(engine) as s, s.begin():
            s.add(Region(id=9, name="west")); s.flush()
            c = Customer(name="new", email="new@x.example", mood="sad", region_id=9, amount=3, orders=[Order(item="a", amount=1), Order(item="b", amount=2)])
            s.add(c); s.flush(); c.name = "renamed"; s.flush()
            s.bulk_save_objects([Order(item="bulk %d" % n, amount=n, region=9) for n in range(50)])
            s.bulk_insert_mappings(Order, [{"item": "mapped %d" % n, "amount": n, "region": 9} for n in range(50)])
            s.add_all([Order(item="flushed %d" % n, amount=n, region=9) for n in range(50)]); s.flush()
            with s.begin_nested() as inner:
                s.add(Region(id=10, name="never")); s.flush(); inner.rollback()
            s.execute(sa.update(Order).where(Order.item.like("bulk%")).values(amount=Order.amount + 1).execution_options(synchronize_session=False))
            s.execute(sa.insert(Order), [{"item": "core %d" % n, "amount": n, "region": 9} for n in range(50)])
            print(s.execute(insert(Region).values(id=9, name="again").on_conflict_do_update(index_elements=["id"], set_={"name": "upserted"}).returning(Region.name)).scalar())
            s.delete(c.orders[0]); s.flush(); s.refresh(c)
            print(c.name, len(c.orders), s.query(func.count(Order.id), func.sum(Order.amount)).filter(Order.region == 9).one())
        with orm.Session(engine) as s, s.begin():
            c = s.query(Customer).filter_by(name="renamed").options(orm.joinedload(Customer.orders)).one()
            print([o.item for o in c.orders], s.get(Region, 10))
            s.delete(c); s.flush()
            print(s.execute(sa.delete(Order).where(Order.region == 9).execution_options(synchronize_session=False)).rowcount, s.execute(sa.delete(Region).where(Region.id == 9).execution_options(synchronize_session=False)).rowcount)
        return "committed"
    asked("a unit of work", write)
print("done")
`;
